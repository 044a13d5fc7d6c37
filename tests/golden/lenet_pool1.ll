define internal void @NAME(ptr %p0, ptr %p1, ptr %p2, i64 %lo, i64 %hi) noinline nounwind {
entry:
  %a11 = alloca <8 x float>
  %a12 = alloca <8 x float>
  %a13 = alloca <8 x i32>
  %a113 = alloca <8 x float>
  %a114 = alloca <8 x float>
  %a115 = alloca <8 x i32>
  br label %start
start:
  br label %head1
head1:
  %i1 = phi i64 [%lo, %start], [%v212, %cont112]
  %v2 = icmp slt i64 %i1, %hi
  br i1 %v2, label %body1, label %done1
body1:
  %v3 = trunc i64 %i1 to i32
  %v4 = udiv i32 %v3, 12
  %v5 = mul i32 %v4, 12
  %v6 = sub i32 %v3, %v5
  %v7 = zext i32 %v4 to i64
  %v8 = zext i32 %v6 to i64
  br label %head9
head9:
  %i9 = phi i64 [0, %body1], [%v110, %body9]
  %v10 = icmp slt i64 %i9, 16
  br i1 %v10, label %body9, label %done9
body9:
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a11
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a12
  %v14 = trunc i64 0 to i32
  %v15 = insertelement <8 x i32> poison, i32 %v14, i64 0
  %v16 = shufflevector <8 x i32> %v15, <8 x i32> poison, <8 x i32> zeroinitializer
  store <8 x i32> %v16, ptr %a13
  %v17 = mul nsw i64 %v7, 960
  %v18 = mul nsw i64 %v8, 40
  %v19 = add nsw i64 %v17, %v18
  %v20 = add nsw i64 %v19, %i9
  %v21 = getelementptr float, ptr %p0, i64 %v20
  %v22 = load <8 x float>, ptr %v21, align 4
  %v23 = load <8 x float>, ptr %a11
  %v24 = fcmp ogt <8 x float> %v23, %v22
  %v25 = select <8 x i1> %v24, <8 x float> %v23, <8 x float> %v22
  %v26 = fcmp uno <8 x float> %v23, %v23
  %v27 = select <8 x i1> %v26, <8 x float> %v23, <8 x float> %v25
  store <8 x float> %v27, ptr %a11
  %v28 = trunc i64 0 to i32
  %v29 = load <8 x float>, ptr %a12
  %v30 = fcmp ogt <8 x float> %v22, %v29
  %v31 = select <8 x i1> %v30, <8 x float> %v22, <8 x float> %v29
  store <8 x float> %v31, ptr %a12
  %v32 = load <8 x i32>, ptr %a13
  %v33 = insertelement <8 x i32> poison, i32 %v28, i64 0
  %v34 = shufflevector <8 x i32> %v33, <8 x i32> poison, <8 x i32> zeroinitializer
  %v35 = select <8 x i1> %v30, <8 x i32> %v34, <8 x i32> %v32
  store <8 x i32> %v35, ptr %a13
  %v36 = mul nsw i64 %v7, 960
  %v37 = mul nsw i64 %v8, 40
  %v38 = add nsw i64 %v36, %v37
  %v39 = add nsw i64 %v38, 20
  %v40 = add nsw i64 %v39, %i9
  %v41 = getelementptr float, ptr %p0, i64 %v40
  %v42 = load <8 x float>, ptr %v41, align 4
  %v43 = load <8 x float>, ptr %a11
  %v44 = fcmp ogt <8 x float> %v43, %v42
  %v45 = select <8 x i1> %v44, <8 x float> %v43, <8 x float> %v42
  %v46 = fcmp uno <8 x float> %v43, %v43
  %v47 = select <8 x i1> %v46, <8 x float> %v43, <8 x float> %v45
  store <8 x float> %v47, ptr %a11
  %v48 = trunc i64 1 to i32
  %v49 = load <8 x float>, ptr %a12
  %v50 = fcmp ogt <8 x float> %v42, %v49
  %v51 = select <8 x i1> %v50, <8 x float> %v42, <8 x float> %v49
  store <8 x float> %v51, ptr %a12
  %v52 = load <8 x i32>, ptr %a13
  %v53 = insertelement <8 x i32> poison, i32 %v48, i64 0
  %v54 = shufflevector <8 x i32> %v53, <8 x i32> poison, <8 x i32> zeroinitializer
  %v55 = select <8 x i1> %v50, <8 x i32> %v54, <8 x i32> %v52
  store <8 x i32> %v55, ptr %a13
  %v56 = mul nsw i64 %v7, 960
  %v57 = add nsw i64 %v56, 480
  %v58 = mul nsw i64 %v8, 40
  %v59 = add nsw i64 %v57, %v58
  %v60 = add nsw i64 %v59, %i9
  %v61 = getelementptr float, ptr %p0, i64 %v60
  %v62 = load <8 x float>, ptr %v61, align 4
  %v63 = load <8 x float>, ptr %a11
  %v64 = fcmp ogt <8 x float> %v63, %v62
  %v65 = select <8 x i1> %v64, <8 x float> %v63, <8 x float> %v62
  %v66 = fcmp uno <8 x float> %v63, %v63
  %v67 = select <8 x i1> %v66, <8 x float> %v63, <8 x float> %v65
  store <8 x float> %v67, ptr %a11
  %v68 = trunc i64 2 to i32
  %v69 = load <8 x float>, ptr %a12
  %v70 = fcmp ogt <8 x float> %v62, %v69
  %v71 = select <8 x i1> %v70, <8 x float> %v62, <8 x float> %v69
  store <8 x float> %v71, ptr %a12
  %v72 = load <8 x i32>, ptr %a13
  %v73 = insertelement <8 x i32> poison, i32 %v68, i64 0
  %v74 = shufflevector <8 x i32> %v73, <8 x i32> poison, <8 x i32> zeroinitializer
  %v75 = select <8 x i1> %v70, <8 x i32> %v74, <8 x i32> %v72
  store <8 x i32> %v75, ptr %a13
  %v76 = mul nsw i64 %v7, 960
  %v77 = add nsw i64 %v76, 480
  %v78 = mul nsw i64 %v8, 40
  %v79 = add nsw i64 %v77, %v78
  %v80 = add nsw i64 %v79, 20
  %v81 = add nsw i64 %v80, %i9
  %v82 = getelementptr float, ptr %p0, i64 %v81
  %v83 = load <8 x float>, ptr %v82, align 4
  %v84 = load <8 x float>, ptr %a11
  %v85 = fcmp ogt <8 x float> %v84, %v83
  %v86 = select <8 x i1> %v85, <8 x float> %v84, <8 x float> %v83
  %v87 = fcmp uno <8 x float> %v84, %v84
  %v88 = select <8 x i1> %v87, <8 x float> %v84, <8 x float> %v86
  store <8 x float> %v88, ptr %a11
  %v89 = trunc i64 3 to i32
  %v90 = load <8 x float>, ptr %a12
  %v91 = fcmp ogt <8 x float> %v83, %v90
  %v92 = select <8 x i1> %v91, <8 x float> %v83, <8 x float> %v90
  store <8 x float> %v92, ptr %a12
  %v93 = load <8 x i32>, ptr %a13
  %v94 = insertelement <8 x i32> poison, i32 %v89, i64 0
  %v95 = shufflevector <8 x i32> %v94, <8 x i32> poison, <8 x i32> zeroinitializer
  %v96 = select <8 x i1> %v91, <8 x i32> %v95, <8 x i32> %v93
  store <8 x i32> %v96, ptr %a13
  %v97 = load <8 x float>, ptr %a11
  %v98 = load <8 x i32>, ptr %a13
  %v99 = mul nsw i64 %v7, 240
  %v100 = mul nsw i64 %v8, 20
  %v101 = add nsw i64 %v99, %v100
  %v102 = add nsw i64 %v101, %i9
  %v103 = getelementptr float, ptr %p1, i64 %v102
  store <8 x float> %v97, ptr %v103, align 4
  %v104 = trunc <8 x i32> %v98 to <8 x i8>
  %v105 = mul nsw i64 %v7, 240
  %v106 = mul nsw i64 %v8, 20
  %v107 = add nsw i64 %v105, %v106
  %v108 = add nsw i64 %v107, %i9
  %v109 = getelementptr i8, ptr %p2, i64 %v108
  store <8 x i8> %v104, ptr %v109, align 1
  %v110 = add nsw i64 %i9, 8
  br label %head9
done9:
  %v111 = icmp eq i64 2, 2
  br i1 %v111, label %then112, label %cont112
then112:
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a113
  store <8 x float> splat (float 0xFFF0000000000000), ptr %a114
  %v116 = trunc i64 0 to i32
  %v117 = insertelement <8 x i32> poison, i32 %v116, i64 0
  %v118 = shufflevector <8 x i32> %v117, <8 x i32> poison, <8 x i32> zeroinitializer
  store <8 x i32> %v118, ptr %a115
  %v119 = mul nsw i64 %v7, 960
  %v120 = mul nsw i64 %v8, 40
  %v121 = add nsw i64 %v119, %v120
  %v122 = add nsw i64 %v121, 16
  %v123 = getelementptr float, ptr %p0, i64 %v122
  %v124 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v123, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v125 = load <8 x float>, ptr %a113
  %v126 = fcmp ogt <8 x float> %v125, %v124
  %v127 = select <8 x i1> %v126, <8 x float> %v125, <8 x float> %v124
  %v128 = fcmp uno <8 x float> %v125, %v125
  %v129 = select <8 x i1> %v128, <8 x float> %v125, <8 x float> %v127
  store <8 x float> %v129, ptr %a113
  %v130 = trunc i64 0 to i32
  %v131 = load <8 x float>, ptr %a114
  %v132 = fcmp ogt <8 x float> %v124, %v131
  %v133 = select <8 x i1> %v132, <8 x float> %v124, <8 x float> %v131
  store <8 x float> %v133, ptr %a114
  %v134 = load <8 x i32>, ptr %a115
  %v135 = insertelement <8 x i32> poison, i32 %v130, i64 0
  %v136 = shufflevector <8 x i32> %v135, <8 x i32> poison, <8 x i32> zeroinitializer
  %v137 = select <8 x i1> %v132, <8 x i32> %v136, <8 x i32> %v134
  store <8 x i32> %v137, ptr %a115
  %v138 = mul nsw i64 %v7, 960
  %v139 = mul nsw i64 %v8, 40
  %v140 = add nsw i64 %v138, %v139
  %v141 = add nsw i64 %v140, 20
  %v142 = add nsw i64 %v141, 16
  %v143 = getelementptr float, ptr %p0, i64 %v142
  %v144 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v143, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v145 = load <8 x float>, ptr %a113
  %v146 = fcmp ogt <8 x float> %v145, %v144
  %v147 = select <8 x i1> %v146, <8 x float> %v145, <8 x float> %v144
  %v148 = fcmp uno <8 x float> %v145, %v145
  %v149 = select <8 x i1> %v148, <8 x float> %v145, <8 x float> %v147
  store <8 x float> %v149, ptr %a113
  %v150 = trunc i64 1 to i32
  %v151 = load <8 x float>, ptr %a114
  %v152 = fcmp ogt <8 x float> %v144, %v151
  %v153 = select <8 x i1> %v152, <8 x float> %v144, <8 x float> %v151
  store <8 x float> %v153, ptr %a114
  %v154 = load <8 x i32>, ptr %a115
  %v155 = insertelement <8 x i32> poison, i32 %v150, i64 0
  %v156 = shufflevector <8 x i32> %v155, <8 x i32> poison, <8 x i32> zeroinitializer
  %v157 = select <8 x i1> %v152, <8 x i32> %v156, <8 x i32> %v154
  store <8 x i32> %v157, ptr %a115
  %v158 = mul nsw i64 %v7, 960
  %v159 = add nsw i64 %v158, 480
  %v160 = mul nsw i64 %v8, 40
  %v161 = add nsw i64 %v159, %v160
  %v162 = add nsw i64 %v161, 16
  %v163 = getelementptr float, ptr %p0, i64 %v162
  %v164 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v163, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v165 = load <8 x float>, ptr %a113
  %v166 = fcmp ogt <8 x float> %v165, %v164
  %v167 = select <8 x i1> %v166, <8 x float> %v165, <8 x float> %v164
  %v168 = fcmp uno <8 x float> %v165, %v165
  %v169 = select <8 x i1> %v168, <8 x float> %v165, <8 x float> %v167
  store <8 x float> %v169, ptr %a113
  %v170 = trunc i64 2 to i32
  %v171 = load <8 x float>, ptr %a114
  %v172 = fcmp ogt <8 x float> %v164, %v171
  %v173 = select <8 x i1> %v172, <8 x float> %v164, <8 x float> %v171
  store <8 x float> %v173, ptr %a114
  %v174 = load <8 x i32>, ptr %a115
  %v175 = insertelement <8 x i32> poison, i32 %v170, i64 0
  %v176 = shufflevector <8 x i32> %v175, <8 x i32> poison, <8 x i32> zeroinitializer
  %v177 = select <8 x i1> %v172, <8 x i32> %v176, <8 x i32> %v174
  store <8 x i32> %v177, ptr %a115
  %v178 = mul nsw i64 %v7, 960
  %v179 = add nsw i64 %v178, 480
  %v180 = mul nsw i64 %v8, 40
  %v181 = add nsw i64 %v179, %v180
  %v182 = add nsw i64 %v181, 20
  %v183 = add nsw i64 %v182, 16
  %v184 = getelementptr float, ptr %p0, i64 %v183
  %v185 = call <8 x float> @llvm.masked.load.v8f32.p0(ptr %v184, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>, <8 x float> splat (float 0x0000000000000000))
  %v186 = load <8 x float>, ptr %a113
  %v187 = fcmp ogt <8 x float> %v186, %v185
  %v188 = select <8 x i1> %v187, <8 x float> %v186, <8 x float> %v185
  %v189 = fcmp uno <8 x float> %v186, %v186
  %v190 = select <8 x i1> %v189, <8 x float> %v186, <8 x float> %v188
  store <8 x float> %v190, ptr %a113
  %v191 = trunc i64 3 to i32
  %v192 = load <8 x float>, ptr %a114
  %v193 = fcmp ogt <8 x float> %v185, %v192
  %v194 = select <8 x i1> %v193, <8 x float> %v185, <8 x float> %v192
  store <8 x float> %v194, ptr %a114
  %v195 = load <8 x i32>, ptr %a115
  %v196 = insertelement <8 x i32> poison, i32 %v191, i64 0
  %v197 = shufflevector <8 x i32> %v196, <8 x i32> poison, <8 x i32> zeroinitializer
  %v198 = select <8 x i1> %v193, <8 x i32> %v197, <8 x i32> %v195
  store <8 x i32> %v198, ptr %a115
  %v199 = load <8 x float>, ptr %a113
  %v200 = load <8 x i32>, ptr %a115
  %v201 = mul nsw i64 %v7, 240
  %v202 = mul nsw i64 %v8, 20
  %v203 = add nsw i64 %v201, %v202
  %v204 = add nsw i64 %v203, 16
  %v205 = getelementptr float, ptr %p1, i64 %v204
  call void @llvm.masked.store.v8f32.p0(<8 x float> %v199, ptr %v205, i32 4, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>)
  %v206 = trunc <8 x i32> %v200 to <8 x i8>
  %v207 = mul nsw i64 %v7, 240
  %v208 = mul nsw i64 %v8, 20
  %v209 = add nsw i64 %v207, %v208
  %v210 = add nsw i64 %v209, 16
  %v211 = getelementptr i8, ptr %p2, i64 %v210
  call void @llvm.masked.store.v8i8.p0(<8 x i8> %v206, ptr %v211, i32 1, <8 x i1> <i1 true, i1 true, i1 true, i1 true, i1 false, i1 false, i1 false, i1 false>)
  br label %cont112
cont112:
  %v212 = add nsw i64 %i1, 1
  br label %head1
done1:
  ret void
}
