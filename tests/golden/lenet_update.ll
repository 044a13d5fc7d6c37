define internal void @NAME(ptr %p0, ptr %p1, ptr %p2, ptr %p3, ptr %p4, i64 %lo, i64 %hi) noinline nounwind {
entry:
  br label %start
start:
  br label %head1
head1:
  %i1 = phi i64 [%lo, %start], [%v37, %done3]
  %v2 = icmp slt i64 %i1, %hi
  br i1 %v2, label %body1, label %done1
body1:
  br label %head3
head3:
  %i3 = phi i64 [0, %body1], [%v36, %body3]
  %v4 = icmp slt i64 %i3, 16
  br i1 %v4, label %body3, label %done3
body3:
  %v5 = mul nsw i64 %i1, 16
  %v6 = add nsw i64 %v5, %i3
  %v7 = getelementptr float, ptr %p0, i64 %v6
  %v8 = load <8 x float>, ptr %v7, align 4
  %v9 = fmul <8 x float> %v8, splat (float 0x3FECCCCCC0000000)
  %v10 = getelementptr float, ptr %p1, i64 3
  %v11 = load float, ptr %v10, align 4
  %v12 = getelementptr float, ptr %p2, i64 %i1
  %v13 = load float, ptr %v12, align 4
  %v14 = fmul float %v11, %v13
  %v15 = mul nsw i64 %i1, 16
  %v16 = add nsw i64 %v15, %i3
  %v17 = getelementptr float, ptr %p3, i64 %v16
  %v18 = load <8 x float>, ptr %v17, align 4
  %v19 = mul nsw i64 %i1, 16
  %v20 = add nsw i64 %v19, %i3
  %v21 = getelementptr float, ptr %p4, i64 %v20
  %v22 = load <8 x float>, ptr %v21, align 4
  %v23 = fmul <8 x float> splat (float 0x3F40624DE0000000), %v22
  %v24 = fadd <8 x float> %v18, %v23
  %v25 = insertelement <8 x float> poison, float %v14, i64 0
  %v26 = shufflevector <8 x float> %v25, <8 x float> poison, <8 x i32> zeroinitializer
  %v27 = fmul <8 x float> %v26, %v24
  %v28 = fadd <8 x float> %v9, %v27
  %v29 = fsub <8 x float> %v22, %v28
  %v30 = mul nsw i64 %i1, 16
  %v31 = add nsw i64 %v30, %i3
  %v32 = getelementptr float, ptr %p0, i64 %v31
  store <8 x float> %v28, ptr %v32, align 4
  %v33 = mul nsw i64 %i1, 16
  %v34 = add nsw i64 %v33, %i3
  %v35 = getelementptr float, ptr %p4, i64 %v34
  store <8 x float> %v29, ptr %v35, align 4
  %v36 = add nsw i64 %i3, 8
  br label %head3
done3:
  %v37 = add nsw i64 %i1, 1
  br label %head1
done1:
  ret void
}
