define internal void @NAME(ptr %p0, ptr %p1, ptr %p2, i64 %lo, i64 %hi) noinline nounwind {
entry:
  %a17 = alloca <8 x float>
  %a18 = alloca <8 x float>
  %a19 = alloca <8 x i32>
  %a149 = alloca <8 x float>
  %a150 = alloca <8 x float>
  %a151 = alloca <8 x i32>
  br label %start
start:
  br label %head1
head1:
  %i1 = phi i64 [%lo, %start], [%v278, %cont148]
  %v2 = icmp slt i64 %i1, %hi
  br i1 %v2, label %body1, label %done1
body1:
  %v3 = trunc i64 %i1 to i32
  %v4 = udiv i32 %v3, 12
  %v5 = mul i32 %v4, 12
  %v6 = sub i32 %v3, %v5
  %v7 = zext i32 %v4 to i64
  %v8 = zext i32 %v6 to i64
  %v9 = trunc i64 %v7 to i32
  %v10 = udiv i32 %v9, 12
  %v11 = mul i32 %v10, 12
  %v12 = sub i32 %v9, %v11
  %v13 = zext i32 %v10 to i64
  %v14 = zext i32 %v12 to i64
  br label %head15
head15:
  %i15 = phi i64 [0, %body1], [%v146, %body15]
  %v16 = icmp slt i64 %i15, 16
  br i1 %v16, label %body15, label %done15
body15:
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a17
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a18
  %v20 = mul nsw i64 %v14, 48
  %v21 = mul nsw i64 %v8, 2
  %v22 = add nsw i64 %v20, %v21
  %v23 = trunc i64 %v22 to i32
  %v24 = insertelement <8 x i32> poison, i32 %v23, i64 0
  %v25 = shufflevector <8 x i32> %v24, <8 x i32> poison, <8 x i32> zeroinitializer
  store <8 x i32> %v25, ptr %a19
  %v26 = mul nsw i64 %v13, 11520
  %v27 = mul nsw i64 %v14, 960
  %v28 = add nsw i64 %v26, %v27
  %v29 = mul nsw i64 %v8, 40
  %v30 = add nsw i64 %v28, %v29
  %v31 = add nsw i64 %v30, %i15
  %v32 = getelementptr float, ptr %p0, i64 %v31
  %v33 = load <8 x float>, ptr %v32, align 4
  %v34 = load <8 x float>, ptr %a17
  %v35 = fcmp ogt <8 x float> %v34, %v33
  %v36 = select <8 x i1> %v35, <8 x float> %v34, <8 x float> %v33
  %v37 = fcmp uno <8 x float> %v34, %v34
  %v38 = select <8 x i1> %v37, <8 x float> %v34, <8 x float> %v36
  store <8 x float> %v38, ptr %a17
  %v39 = mul nsw i64 %v14, 48
  %v40 = mul nsw i64 %v8, 2
  %v41 = add nsw i64 %v39, %v40
  %v42 = trunc i64 %v41 to i32
  %v43 = load <8 x float>, ptr %a18
  %v44 = fcmp ogt <8 x float> %v33, %v43
  %v45 = select <8 x i1> %v44, <8 x float> %v33, <8 x float> %v43
  store <8 x float> %v45, ptr %a18
  %v46 = load <8 x i32>, ptr %a19
  %v47 = insertelement <8 x i32> poison, i32 %v42, i64 0
  %v48 = shufflevector <8 x i32> %v47, <8 x i32> poison, <8 x i32> zeroinitializer
  %v49 = select <8 x i1> %v44, <8 x i32> %v48, <8 x i32> %v46
  store <8 x i32> %v49, ptr %a19
  %v50 = mul nsw i64 %v13, 11520
  %v51 = mul nsw i64 %v14, 960
  %v52 = add nsw i64 %v50, %v51
  %v53 = mul nsw i64 %v8, 40
  %v54 = add nsw i64 %v52, %v53
  %v55 = add nsw i64 %v54, 20
  %v56 = add nsw i64 %v55, %i15
  %v57 = getelementptr float, ptr %p0, i64 %v56
  %v58 = load <8 x float>, ptr %v57, align 4
  %v59 = load <8 x float>, ptr %a17
  %v60 = fcmp ogt <8 x float> %v59, %v58
  %v61 = select <8 x i1> %v60, <8 x float> %v59, <8 x float> %v58
  %v62 = fcmp uno <8 x float> %v59, %v59
  %v63 = select <8 x i1> %v62, <8 x float> %v59, <8 x float> %v61
  store <8 x float> %v63, ptr %a17
  %v64 = mul nsw i64 %v14, 48
  %v65 = mul nsw i64 %v8, 2
  %v66 = add nsw i64 %v64, %v65
  %v67 = add nsw i64 %v66, 1
  %v68 = trunc i64 %v67 to i32
  %v69 = load <8 x float>, ptr %a18
  %v70 = fcmp ogt <8 x float> %v58, %v69
  %v71 = select <8 x i1> %v70, <8 x float> %v58, <8 x float> %v69
  store <8 x float> %v71, ptr %a18
  %v72 = load <8 x i32>, ptr %a19
  %v73 = insertelement <8 x i32> poison, i32 %v68, i64 0
  %v74 = shufflevector <8 x i32> %v73, <8 x i32> poison, <8 x i32> zeroinitializer
  %v75 = select <8 x i1> %v70, <8 x i32> %v74, <8 x i32> %v72
  store <8 x i32> %v75, ptr %a19
  %v76 = mul nsw i64 %v13, 11520
  %v77 = mul nsw i64 %v14, 960
  %v78 = add nsw i64 %v76, %v77
  %v79 = add nsw i64 %v78, 480
  %v80 = mul nsw i64 %v8, 40
  %v81 = add nsw i64 %v79, %v80
  %v82 = add nsw i64 %v81, %i15
  %v83 = getelementptr float, ptr %p0, i64 %v82
  %v84 = load <8 x float>, ptr %v83, align 4
  %v85 = load <8 x float>, ptr %a17
  %v86 = fcmp ogt <8 x float> %v85, %v84
  %v87 = select <8 x i1> %v86, <8 x float> %v85, <8 x float> %v84
  %v88 = fcmp uno <8 x float> %v85, %v85
  %v89 = select <8 x i1> %v88, <8 x float> %v85, <8 x float> %v87
  store <8 x float> %v89, ptr %a17
  %v90 = mul nsw i64 %v14, 48
  %v91 = add nsw i64 %v90, 24
  %v92 = mul nsw i64 %v8, 2
  %v93 = add nsw i64 %v91, %v92
  %v94 = trunc i64 %v93 to i32
  %v95 = load <8 x float>, ptr %a18
  %v96 = fcmp ogt <8 x float> %v84, %v95
  %v97 = select <8 x i1> %v96, <8 x float> %v84, <8 x float> %v95
  store <8 x float> %v97, ptr %a18
  %v98 = load <8 x i32>, ptr %a19
  %v99 = insertelement <8 x i32> poison, i32 %v94, i64 0
  %v100 = shufflevector <8 x i32> %v99, <8 x i32> poison, <8 x i32> zeroinitializer
  %v101 = select <8 x i1> %v96, <8 x i32> %v100, <8 x i32> %v98
  store <8 x i32> %v101, ptr %a19
  %v102 = mul nsw i64 %v13, 11520
  %v103 = mul nsw i64 %v14, 960
  %v104 = add nsw i64 %v102, %v103
  %v105 = add nsw i64 %v104, 480
  %v106 = mul nsw i64 %v8, 40
  %v107 = add nsw i64 %v105, %v106
  %v108 = add nsw i64 %v107, 20
  %v109 = add nsw i64 %v108, %i15
  %v110 = getelementptr float, ptr %p0, i64 %v109
  %v111 = load <8 x float>, ptr %v110, align 4
  %v112 = load <8 x float>, ptr %a17
  %v113 = fcmp ogt <8 x float> %v112, %v111
  %v114 = select <8 x i1> %v113, <8 x float> %v112, <8 x float> %v111
  %v115 = fcmp uno <8 x float> %v112, %v112
  %v116 = select <8 x i1> %v115, <8 x float> %v112, <8 x float> %v114
  store <8 x float> %v116, ptr %a17
  %v117 = mul nsw i64 %v14, 48
  %v118 = add nsw i64 %v117, 24
  %v119 = mul nsw i64 %v8, 2
  %v120 = add nsw i64 %v118, %v119
  %v121 = add nsw i64 %v120, 1
  %v122 = trunc i64 %v121 to i32
  %v123 = load <8 x float>, ptr %a18
  %v124 = fcmp ogt <8 x float> %v111, %v123
  %v125 = select <8 x i1> %v124, <8 x float> %v111, <8 x float> %v123
  store <8 x float> %v125, ptr %a18
  %v126 = load <8 x i32>, ptr %a19
  %v127 = insertelement <8 x i32> poison, i32 %v122, i64 0
  %v128 = shufflevector <8 x i32> %v127, <8 x i32> poison, <8 x i32> zeroinitializer
  %v129 = select <8 x i1> %v124, <8 x i32> %v128, <8 x i32> %v126
  store <8 x i32> %v129, ptr %a19
  %v130 = load <8 x float>, ptr %a17
  %v131 = load <8 x i32>, ptr %a19
  %v132 = mul nsw i64 %v13, 2880
  %v133 = mul nsw i64 %v14, 240
  %v134 = add nsw i64 %v132, %v133
  %v135 = mul nsw i64 %v8, 20
  %v136 = add nsw i64 %v134, %v135
  %v137 = add nsw i64 %v136, %i15
  %v138 = getelementptr float, ptr %p1, i64 %v137
  store <8 x float> %v130, ptr %v138, align 4
  %v139 = mul nsw i64 %v13, 2880
  %v140 = mul nsw i64 %v14, 240
  %v141 = add nsw i64 %v139, %v140
  %v142 = mul nsw i64 %v8, 20
  %v143 = add nsw i64 %v141, %v142
  %v144 = add nsw i64 %v143, %i15
  %v145 = getelementptr i32, ptr %p2, i64 %v144
  store <8 x i32> %v131, ptr %v145, align 4
  %v146 = add nsw i64 %i15, 8
  br label %head15
done15:
  %v147 = icmp eq i64 2, 2
  br i1 %v147, label %then148, label %cont148
then148:
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a149
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a150
  %v152 = mul nsw i64 %v14, 48
  %v153 = mul nsw i64 %v8, 2
  %v154 = add nsw i64 %v152, %v153
  %v155 = trunc i64 %v154 to i32
  %v156 = insertelement <8 x i32> poison, i32 %v155, i64 0
  %v157 = shufflevector <8 x i32> %v156, <8 x i32> poison, <8 x i32> zeroinitializer
  store <8 x i32> %v157, ptr %a151
  %v158 = mul nsw i64 %v13, 11520
  %v159 = mul nsw i64 %v14, 960
  %v160 = add nsw i64 %v158, %v159
  %v161 = mul nsw i64 %v8, 40
  %v162 = add nsw i64 %v160, %v161
  %v163 = add nsw i64 %v162, 16
  %v164 = getelementptr float, ptr %p0, i64 %v163
  %v165 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v164, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v166 = load <8 x float>, ptr %a149
  %v167 = fcmp ogt <8 x float> %v166, %v165
  %v168 = select <8 x i1> %v167, <8 x float> %v166, <8 x float> %v165
  %v169 = fcmp uno <8 x float> %v166, %v166
  %v170 = select <8 x i1> %v169, <8 x float> %v166, <8 x float> %v168
  store <8 x float> %v170, ptr %a149
  %v171 = mul nsw i64 %v14, 48
  %v172 = mul nsw i64 %v8, 2
  %v173 = add nsw i64 %v171, %v172
  %v174 = trunc i64 %v173 to i32
  %v175 = load <8 x float>, ptr %a150
  %v176 = fcmp ogt <8 x float> %v165, %v175
  %v177 = select <8 x i1> %v176, <8 x float> %v165, <8 x float> %v175
  store <8 x float> %v177, ptr %a150
  %v178 = load <8 x i32>, ptr %a151
  %v179 = insertelement <8 x i32> poison, i32 %v174, i64 0
  %v180 = shufflevector <8 x i32> %v179, <8 x i32> poison, <8 x i32> zeroinitializer
  %v181 = select <8 x i1> %v176, <8 x i32> %v180, <8 x i32> %v178
  store <8 x i32> %v181, ptr %a151
  %v182 = mul nsw i64 %v13, 11520
  %v183 = mul nsw i64 %v14, 960
  %v184 = add nsw i64 %v182, %v183
  %v185 = mul nsw i64 %v8, 40
  %v186 = add nsw i64 %v184, %v185
  %v187 = add nsw i64 %v186, 20
  %v188 = add nsw i64 %v187, 16
  %v189 = getelementptr float, ptr %p0, i64 %v188
  %v190 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v189, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v191 = load <8 x float>, ptr %a149
  %v192 = fcmp ogt <8 x float> %v191, %v190
  %v193 = select <8 x i1> %v192, <8 x float> %v191, <8 x float> %v190
  %v194 = fcmp uno <8 x float> %v191, %v191
  %v195 = select <8 x i1> %v194, <8 x float> %v191, <8 x float> %v193
  store <8 x float> %v195, ptr %a149
  %v196 = mul nsw i64 %v14, 48
  %v197 = mul nsw i64 %v8, 2
  %v198 = add nsw i64 %v196, %v197
  %v199 = add nsw i64 %v198, 1
  %v200 = trunc i64 %v199 to i32
  %v201 = load <8 x float>, ptr %a150
  %v202 = fcmp ogt <8 x float> %v190, %v201
  %v203 = select <8 x i1> %v202, <8 x float> %v190, <8 x float> %v201
  store <8 x float> %v203, ptr %a150
  %v204 = load <8 x i32>, ptr %a151
  %v205 = insertelement <8 x i32> poison, i32 %v200, i64 0
  %v206 = shufflevector <8 x i32> %v205, <8 x i32> poison, <8 x i32> zeroinitializer
  %v207 = select <8 x i1> %v202, <8 x i32> %v206, <8 x i32> %v204
  store <8 x i32> %v207, ptr %a151
  %v208 = mul nsw i64 %v13, 11520
  %v209 = mul nsw i64 %v14, 960
  %v210 = add nsw i64 %v208, %v209
  %v211 = add nsw i64 %v210, 480
  %v212 = mul nsw i64 %v8, 40
  %v213 = add nsw i64 %v211, %v212
  %v214 = add nsw i64 %v213, 16
  %v215 = getelementptr float, ptr %p0, i64 %v214
  %v216 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v215, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v217 = load <8 x float>, ptr %a149
  %v218 = fcmp ogt <8 x float> %v217, %v216
  %v219 = select <8 x i1> %v218, <8 x float> %v217, <8 x float> %v216
  %v220 = fcmp uno <8 x float> %v217, %v217
  %v221 = select <8 x i1> %v220, <8 x float> %v217, <8 x float> %v219
  store <8 x float> %v221, ptr %a149
  %v222 = mul nsw i64 %v14, 48
  %v223 = add nsw i64 %v222, 24
  %v224 = mul nsw i64 %v8, 2
  %v225 = add nsw i64 %v223, %v224
  %v226 = trunc i64 %v225 to i32
  %v227 = load <8 x float>, ptr %a150
  %v228 = fcmp ogt <8 x float> %v216, %v227
  %v229 = select <8 x i1> %v228, <8 x float> %v216, <8 x float> %v227
  store <8 x float> %v229, ptr %a150
  %v230 = load <8 x i32>, ptr %a151
  %v231 = insertelement <8 x i32> poison, i32 %v226, i64 0
  %v232 = shufflevector <8 x i32> %v231, <8 x i32> poison, <8 x i32> zeroinitializer
  %v233 = select <8 x i1> %v228, <8 x i32> %v232, <8 x i32> %v230
  store <8 x i32> %v233, ptr %a151
  %v234 = mul nsw i64 %v13, 11520
  %v235 = mul nsw i64 %v14, 960
  %v236 = add nsw i64 %v234, %v235
  %v237 = add nsw i64 %v236, 480
  %v238 = mul nsw i64 %v8, 40
  %v239 = add nsw i64 %v237, %v238
  %v240 = add nsw i64 %v239, 20
  %v241 = add nsw i64 %v240, 16
  %v242 = getelementptr float, ptr %p0, i64 %v241
  %v243 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v242, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v244 = load <8 x float>, ptr %a149
  %v245 = fcmp ogt <8 x float> %v244, %v243
  %v246 = select <8 x i1> %v245, <8 x float> %v244, <8 x float> %v243
  %v247 = fcmp uno <8 x float> %v244, %v244
  %v248 = select <8 x i1> %v247, <8 x float> %v244, <8 x float> %v246
  store <8 x float> %v248, ptr %a149
  %v249 = mul nsw i64 %v14, 48
  %v250 = add nsw i64 %v249, 24
  %v251 = mul nsw i64 %v8, 2
  %v252 = add nsw i64 %v250, %v251
  %v253 = add nsw i64 %v252, 1
  %v254 = trunc i64 %v253 to i32
  %v255 = load <8 x float>, ptr %a150
  %v256 = fcmp ogt <8 x float> %v243, %v255
  %v257 = select <8 x i1> %v256, <8 x float> %v243, <8 x float> %v255
  store <8 x float> %v257, ptr %a150
  %v258 = load <8 x i32>, ptr %a151
  %v259 = insertelement <8 x i32> poison, i32 %v254, i64 0
  %v260 = shufflevector <8 x i32> %v259, <8 x i32> poison, <8 x i32> zeroinitializer
  %v261 = select <8 x i1> %v256, <8 x i32> %v260, <8 x i32> %v258
  store <8 x i32> %v261, ptr %a151
  %v262 = load <8 x float>, ptr %a149
  %v263 = load <8 x i32>, ptr %a151
  %v264 = mul nsw i64 %v13, 2880
  %v265 = mul nsw i64 %v14, 240
  %v266 = add nsw i64 %v264, %v265
  %v267 = mul nsw i64 %v8, 20
  %v268 = add nsw i64 %v266, %v267
  %v269 = add nsw i64 %v268, 16
  %v270 = getelementptr float, ptr %p1, i64 %v269
  call void @llvm.masked.store.v8f32.p0(<8 x float> %v262, ptr %v270, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>)
  %v271 = mul nsw i64 %v13, 2880
  %v272 = mul nsw i64 %v14, 240
  %v273 = add nsw i64 %v271, %v272
  %v274 = mul nsw i64 %v8, 20
  %v275 = add nsw i64 %v273, %v274
  %v276 = add nsw i64 %v275, 16
  %v277 = getelementptr i32, ptr %p2, i64 %v276
  call void @llvm.masked.store.v8i32.p0(<8 x i32> %v263, ptr %v277, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>)
  br label %cont148
cont148:
  %v278 = add nsw i64 %i1, 1
  br label %head1
done1:
  ret void
}
