	.file	"<string>"
	.section	.ltext,"axl",@progbits
	.globl	_ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj
	.p2align	4
	.type	_ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj,@function
_ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj:
	.cfi_startproc
	testq	%r8, %r8
	jle	.LBB0_20
	pushq	%rbp
	.cfi_def_cfa_offset 16
	pushq	%r15
	.cfi_def_cfa_offset 24
	pushq	%r14
	.cfi_def_cfa_offset 32
	pushq	%r13
	.cfi_def_cfa_offset 40
	pushq	%r12
	.cfi_def_cfa_offset 48
	pushq	%rbx
	.cfi_def_cfa_offset 56
	.cfi_offset %rbx, -56
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	.cfi_offset %rbp, -16
	movl	152(%rsp), %eax
	movq	112(%rsp), %rcx
	movq	56(%rsp), %rdx
	movl	144(%rsp), %r9d
	movl	136(%rsp), %r10d
	movl	%eax, %esi
	cmpq	$4, %r8
	jb	.LBB0_2
	leaq	(%rcx,%r8,4), %rbx
	leaq	(%rdx,%r8,4), %r11
	cmpq	%rbx, %rdx
	setb	%bl
	cmpq	%r11, %rcx
	setb	%r11b
	testb	%r11b, %bl
	je	.LBB0_5
.LBB0_2:
	xorl	%r11d, %r11d
.LBB0_14:
	movq	%r8, %r14
	andq	$3, %r14
	movq	%r11, %rbx
	je	.LBB0_17
	movq	%r11, %rbx
	.p2align	4
.LBB0_16:
	movl	(%rdx,%rbx,4), %r15d
	movl	(%rcx,%rbx,4), %r12d
	leal	(%r12,%r15), %ebp
	movl	%ebp, %r13d
	subl	%eax, %r13d
	cmpl	%ebp, %r13d
	cmovael	%ebp, %r13d
	addl	%eax, %r15d
	subl	%r12d, %r15d
	movl	%r13d, (%rdx,%rbx,4)
	movq	%r15, %r12
	imulq	%r9, %r12
	imull	%r10d, %r15d
	shrq	$32, %r12
	imull	%esi, %r12d
	subl	%r12d, %r15d
	movl	%r15d, %ebp
	subl	%eax, %ebp
	cmpl	%r15d, %ebp
	cmovael	%r15d, %ebp
	decq	%r14
	movl	%ebp, (%rcx,%rbx,4)
	leaq	1(%rbx), %rbx
	jne	.LBB0_16
.LBB0_17:
	subq	%r8, %r11
	cmpq	$-4, %r11
	ja	.LBB0_19
	.p2align	4
.LBB0_18:
	movl	(%rdx,%rbx,4), %r11d
	movl	(%rcx,%rbx,4), %r14d
	leal	(%r14,%r11), %ebp
	movl	%ebp, %r15d
	subl	%eax, %r15d
	cmpl	%ebp, %r15d
	cmovael	%ebp, %r15d
	addl	%eax, %r11d
	subl	%r14d, %r11d
	movl	%r15d, (%rdx,%rbx,4)
	movq	%r11, %r14
	imulq	%r9, %r14
	imull	%r10d, %r11d
	shrq	$32, %r14
	imull	%esi, %r14d
	subl	%r14d, %r11d
	movl	%r11d, %ebp
	subl	%eax, %ebp
	cmpl	%r11d, %ebp
	cmovael	%r11d, %ebp
	movl	%ebp, (%rcx,%rbx,4)
	movl	4(%rdx,%rbx,4), %r11d
	movl	4(%rcx,%rbx,4), %r14d
	leal	(%r14,%r11), %ebp
	movl	%ebp, %r15d
	subl	%eax, %r15d
	cmpl	%ebp, %r15d
	cmovael	%ebp, %r15d
	addl	%eax, %r11d
	subl	%r14d, %r11d
	movl	%r15d, 4(%rdx,%rbx,4)
	movq	%r11, %r14
	imulq	%r9, %r14
	imull	%r10d, %r11d
	shrq	$32, %r14
	imull	%esi, %r14d
	subl	%r14d, %r11d
	movl	%r11d, %ebp
	subl	%eax, %ebp
	cmpl	%r11d, %ebp
	cmovael	%r11d, %ebp
	movl	%ebp, 4(%rcx,%rbx,4)
	movl	8(%rdx,%rbx,4), %r11d
	movl	8(%rcx,%rbx,4), %r14d
	leal	(%r14,%r11), %ebp
	movl	%ebp, %r15d
	subl	%eax, %r15d
	cmpl	%ebp, %r15d
	cmovael	%ebp, %r15d
	addl	%eax, %r11d
	subl	%r14d, %r11d
	movl	%r15d, 8(%rdx,%rbx,4)
	movq	%r11, %r14
	imulq	%r9, %r14
	imull	%r10d, %r11d
	shrq	$32, %r14
	imull	%esi, %r14d
	subl	%r14d, %r11d
	movl	%r11d, %ebp
	subl	%eax, %ebp
	cmpl	%r11d, %ebp
	cmovael	%r11d, %ebp
	movl	%ebp, 8(%rcx,%rbx,4)
	movl	12(%rdx,%rbx,4), %r11d
	movl	12(%rcx,%rbx,4), %r14d
	leal	(%r14,%r11), %ebp
	movl	%ebp, %r15d
	subl	%eax, %r15d
	cmpl	%ebp, %r15d
	cmovael	%ebp, %r15d
	addl	%eax, %r11d
	subl	%r14d, %r11d
	movl	%r15d, 12(%rdx,%rbx,4)
	movq	%r11, %r14
	imulq	%r9, %r14
	imull	%r10d, %r11d
	shrq	$32, %r14
	imull	%esi, %r14d
	subl	%r14d, %r11d
	movl	%r11d, %ebp
	subl	%eax, %ebp
	cmpl	%r11d, %ebp
	cmovael	%r11d, %ebp
	movl	%ebp, 12(%rcx,%rbx,4)
	addq	$4, %rbx
	cmpq	%rbx, %r8
	jne	.LBB0_18
.LBB0_19:
	popq	%rbx
	.cfi_def_cfa_offset 48
	popq	%r12
	.cfi_def_cfa_offset 40
	popq	%r13
	.cfi_def_cfa_offset 32
	popq	%r14
	.cfi_def_cfa_offset 24
	popq	%r15
	.cfi_def_cfa_offset 16
	popq	%rbp
	.cfi_def_cfa_offset 8
	.cfi_restore %rbx
	.cfi_restore %r12
	.cfi_restore %r13
	.cfi_restore %r14
	.cfi_restore %r15
	.cfi_restore %rbp
.LBB0_20:
	xorl	%eax, %eax
	movq	$0, (%rdi)
	vzeroupper
	retq
.LBB0_5:
	.cfi_def_cfa_offset 56
	.cfi_offset %rbx, -56
	.cfi_offset %rbp, -16
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	movabsq	$9223372036854775792, %rbx
	cmpq	$16, %r8
	jae	.LBB0_7
	xorl	%r11d, %r11d
	jmp	.LBB0_11
.LBB0_7:
	movq	%r8, %r11
	andq	%rbx, %r11
	vpbroadcastq	%rsi, %zmm0
	vpbroadcastq	%r9, %zmm1
	vpbroadcastq	%r10, %zmm2
	vpbroadcastd	%eax, %zmm3
	xorl	%r14d, %r14d
	.p2align	4
.LBB0_8:
	vmovdqu64	(%rdx,%r14,4), %zmm4
	vmovdqu64	(%rcx,%r14,4), %zmm5
	vpaddd	%zmm4, %zmm5, %zmm6
	vpaddd	%zmm3, %zmm4, %zmm4
	vpsubd	%zmm5, %zmm4, %zmm4
	vpsubd	%zmm3, %zmm6, %zmm7
	vextracti64x4	$1, %zmm4, %ymm5
	vpmovzxdq	%ymm4, %zmm4
	vpminud	%zmm6, %zmm7, %zmm6
	vpmovzxdq	%ymm5, %zmm5
	vmovdqu64	%zmm6, (%rdx,%r14,4)
	vpmuludq	%zmm4, %zmm1, %zmm6
	vpmuludq	%zmm4, %zmm2, %zmm4
	vpmuludq	%zmm5, %zmm1, %zmm7
	vpmuludq	%zmm5, %zmm2, %zmm5
	vpsrlq	$32, %zmm6, %zmm6
	vpsrlq	$32, %zmm7, %zmm7
	vpmuludq	%zmm0, %zmm6, %zmm6
	vpmuludq	%zmm0, %zmm7, %zmm7
	vpsubq	%zmm6, %zmm4, %zmm4
	vpsubq	%zmm7, %zmm5, %zmm5
	vpmovqd	%zmm4, %ymm4
	vpmovqd	%zmm5, %ymm5
	vinserti64x4	$1, %ymm5, %zmm4, %zmm4
	vpsubd	%zmm3, %zmm4, %zmm5
	vpminud	%zmm4, %zmm5, %zmm4
	vmovdqu64	%zmm4, (%rcx,%r14,4)
	addq	$16, %r14
	cmpq	%r14, %r11
	jne	.LBB0_8
	cmpq	%r11, %r8
	je	.LBB0_19
	testb	$12, %r8b
	je	.LBB0_14
.LBB0_11:
	addq	$12, %rbx
	movq	%r11, %r14
	vpbroadcastq	%rsi, %ymm0
	vpbroadcastq	%r9, %ymm1
	vpbroadcastq	%r10, %ymm2
	vpbroadcastd	%eax, %xmm3
	movq	%rbx, %r11
	andq	%r8, %r11
	.p2align	4
.LBB0_12:
	vmovdqu	(%rdx,%r14,4), %xmm4
	vmovdqu	(%rcx,%r14,4), %xmm5
	vpaddd	%xmm4, %xmm5, %xmm6
	vpaddd	%xmm3, %xmm4, %xmm4
	vpsubd	%xmm5, %xmm4, %xmm4
	vpsubd	%xmm3, %xmm6, %xmm7
	vpmovzxdq	%xmm4, %ymm4
	vpminud	%xmm6, %xmm7, %xmm6
	vmovdqu	%xmm6, (%rdx,%r14,4)
	vpmuludq	%ymm4, %ymm1, %ymm5
	vpmuludq	%ymm4, %ymm2, %ymm4
	vpsrlq	$32, %ymm5, %ymm5
	vpmuludq	%ymm0, %ymm5, %ymm5
	vpsubq	%ymm5, %ymm4, %ymm4
	vpmovqd	%ymm4, %xmm4
	vpsubd	%xmm3, %xmm4, %xmm5
	vpminud	%xmm4, %xmm5, %xmm4
	vmovdqu	%xmm4, (%rcx,%r14,4)
	addq	$4, %r14
	cmpq	%r14, %r11
	jne	.LBB0_12
	cmpq	%r11, %r8
	je	.LBB0_19
	jmp	.LBB0_14
.Lfunc_end0:
	.size	_ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj, .Lfunc_end0-_ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj
	.cfi_endproc

	.globl	_ZN7cpython4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj
	.p2align	4
	.type	_ZN7cpython4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj,@function
_ZN7cpython4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj:
	.cfi_startproc
	pushq	%rbp
	.cfi_def_cfa_offset 16
	pushq	%r15
	.cfi_def_cfa_offset 24
	pushq	%r14
	.cfi_def_cfa_offset 32
	pushq	%r13
	.cfi_def_cfa_offset 40
	pushq	%r12
	.cfi_def_cfa_offset 48
	pushq	%rbx
	.cfi_def_cfa_offset 56
	subq	$312, %rsp
	.cfi_def_cfa_offset 368
	.cfi_offset %rbx, -56
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	.cfi_offset %rbp, -16
	leaq	152(%rsp), %rax
	movq	%rsi, %rdi
	movabsq	$.const._join, %rsi
	movabsq	$PyArg_UnpackTuple, %r10
	leaq	184(%rsp), %r8
	leaq	176(%rsp), %r9
	movl	$5, %edx
	movl	$5, %ecx
	xorl	%ebx, %ebx
	movq	%rax, 16(%rsp)
	leaq	160(%rsp), %rax
	movq	%rax, 8(%rsp)
	leaq	168(%rsp), %rax
	movq	%rax, (%rsp)
	xorl	%eax, %eax
	callq	*%r10
	testl	%eax, %eax
	je	.LBB1_14
	movabsq	$_ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj, %rax
	cmpq	$0, (%rax)
	je	.LBB1_19
	movq	184(%rsp), %rdi
	movabsq	$NRT_adapt_ndarray_from_python, %rbx
	leaq	192(%rsp), %rsi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 192(%rsp)
	vmovups	%ymm0, 216(%rsp)
	vzeroupper
	callq	*%rbx
	testl	%eax, %eax
	jne	.LBB1_20
	cmpq	$4, 216(%rsp)
	jne	.LBB1_20
	movq	176(%rsp), %rdi
	movq	192(%rsp), %r14
	movq	208(%rsp), %r15
	movq	224(%rsp), %r12
	leaq	256(%rsp), %rsi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 256(%rsp)
	vmovups	%ymm0, 280(%rsp)
	vzeroupper
	callq	*%rbx
	testl	%eax, %eax
	jne	.LBB1_21
	cmpq	$4, 280(%rsp)
	jne	.LBB1_21
	movq	256(%rsp), %rax
	movq	288(%rsp), %rcx
	movq	168(%rsp), %rdi
	movq	%r14, 120(%rsp)
	movabsq	$PyNumber_Long, %r14
	movq	%r12, 136(%rsp)
	movq	%rax, 112(%rsp)
	movq	%rcx, 128(%rsp)
	callq	*%r14
	movabsq	$PyLong_AsUnsignedLongLong, %r12
	movabsq	$Py_DecRef, %rbx
	movq	%r15, 144(%rsp)
	testq	%rax, %rax
	je	.LBB1_22
	movq	%rax, %rdi
	movq	%rax, %r13
	callq	*%r12
	movq	%r13, %rdi
	movq	%rax, 104(%rsp)
	callq	*%rbx
	movabsq	$PyErr_Occurred, %r15
	callq	*%r15
	testq	%rax, %rax
	jne	.LBB1_25
.LBB1_8:
	movq	160(%rsp), %rdi
	callq	*%r14
	testq	%rax, %rax
	je	.LBB1_23
	movq	%rax, %rdi
	movq	%rax, %rbp
	callq	*%r12
	movq	%rbp, %rdi
	movq	%rax, %r13
	callq	*%rbx
	callq	*%r15
	testq	%rax, %rax
	jne	.LBB1_25
.LBB1_10:
	movq	152(%rsp), %rdi
	callq	*%r14
	testq	%rax, %rax
	je	.LBB1_24
	movq	%rax, %rdi
	movq	%rax, %r14
	callq	*%r12
	movq	%r14, %rdi
	movq	%rax, %rbp
	callq	*%rbx
	callq	*%r15
	testq	%rax, %rax
	jne	.LBB1_25
.LBB1_12:
	movabsq	$PyEval_SaveThread, %rax
	callq	*%rax
	movq	%rax, %r14
	movq	104(%rsp), %rax
	movq	128(%rsp), %rdi
	movq	112(%rsp), %r12
	movq	136(%rsp), %rdx
	movq	120(%rsp), %r15
	movq	144(%rsp), %r8
	movl	%ebp, 96(%rsp)
	movl	%r13d, 88(%rsp)
	movl	%eax, 80(%rsp)
	movq	%rdi, 56(%rsp)
	movabsq	$_ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj, %rax
	leaq	248(%rsp), %rdi
	movq	%rdx, (%rsp)
	movq	%r15, %rdx
	movq	%r12, 24(%rsp)
	callq	*%rax
	movabsq	$PyEval_RestoreThread, %r13
	movq	%r14, %rdi
	movl	%eax, %ebp
	callq	*%r13
	movabsq	$NRT_decref, %rbx
	movq	%r15, %rdi
	callq	*%rbx
	movq	%r12, %rdi
	callq	*%rbx
	testl	%ebp, %ebp
	jne	.LBB1_15
	movabsq	$_Py_NoneStruct, %rbx
	movabsq	$Py_IncRef, %rax
	movq	%rbx, %rdi
	callq	*%rax
.LBB1_14:
	movq	%rbx, %rax
	addq	$312, %rsp
	.cfi_def_cfa_offset 56
	popq	%rbx
	.cfi_def_cfa_offset 48
	popq	%r12
	.cfi_def_cfa_offset 40
	popq	%r13
	.cfi_def_cfa_offset 32
	popq	%r14
	.cfi_def_cfa_offset 24
	popq	%r15
	.cfi_def_cfa_offset 16
	popq	%rbp
	.cfi_def_cfa_offset 8
	retq
.LBB1_15:
	.cfi_def_cfa_offset 368
	jg	.LBB1_31
	cmpl	$-1, %ebp
	je	.LBB1_28
	cmpl	$-3, %ebp
	jne	.LBB1_29
	movabsq	$PyExc_StopIteration, %rdi
	movabsq	$PyErr_SetNone, %rax
	jmp	.LBB1_27
.LBB1_19:
	movabsq	$PyExc_RuntimeError, %rdi
	movabsq	$".const.missing Environment: _ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj", %rsi
	jmp	.LBB1_30
.LBB1_20:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	jmp	.LBB1_30
.LBB1_21:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_26
.LBB1_22:
	movq	$0, 104(%rsp)
	movabsq	$PyErr_Occurred, %r15
	callq	*%r15
	testq	%rax, %rax
	je	.LBB1_8
	jmp	.LBB1_25
.LBB1_23:
	xorl	%r13d, %r13d
	callq	*%r15
	testq	%rax, %rax
	je	.LBB1_10
	jmp	.LBB1_25
.LBB1_24:
	xorl	%ebp, %ebp
	callq	*%r15
	testq	%rax, %rax
	je	.LBB1_12
.LBB1_25:
	movq	112(%rsp), %rdi
	movabsq	$NRT_decref, %rax
	callq	*%rax
	movq	120(%rsp), %r14
.LBB1_26:
	movabsq	$NRT_decref, %rax
	movq	%r14, %rdi
.LBB1_27:
	callq	*%rax
.LBB1_28:
	xorl	%ebx, %ebx
	jmp	.LBB1_14
.LBB1_29:
	movabsq	$PyExc_SystemError, %rdi
	movabsq	$".const.unknown error when calling native function", %rsi
.LBB1_30:
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	xorl	%ebx, %ebx
	jmp	.LBB1_14
.LBB1_31:
	movabsq	$PyErr_Clear, %rax
	callq	*%rax
.Lfunc_end1:
	.size	_ZN7cpython4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj, .Lfunc_end1-_ZN7cpython4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj
	.cfi_endproc

	.globl	cfunc._ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj
	.p2align	4
	.type	cfunc._ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj,@function
cfunc._ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj:
	.cfi_startproc
	pushq	%r14
	.cfi_def_cfa_offset 16
	pushq	%rbx
	.cfi_def_cfa_offset 24
	subq	$120, %rsp
	.cfi_def_cfa_offset 144
	.cfi_offset %rbx, -24
	.cfi_offset %r14, -16
	movq	%rdx, %rax
	movq	%rdi, %rdx
	movq	152(%rsp), %rcx
	movl	208(%rsp), %edi
	movq	184(%rsp), %rsi
	movl	216(%rsp), %r9d
	movl	224(%rsp), %r10d
	movq	%r8, (%rsp)
	movq	$0, 112(%rsp)
	movq	%rax, %r8
	movl	%edi, 80(%rsp)
	movq	%rcx, 24(%rsp)
	movabsq	$_ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj, %rcx
	leaq	112(%rsp), %rdi
	movl	%r10d, 96(%rsp)
	movl	%r9d, 88(%rsp)
	movq	%rsi, 56(%rsp)
	callq	*%rcx
	movq	112(%rsp), %rcx
	movl	$0, 108(%rsp)
	testl	%eax, %eax
	jne	.LBB2_1
.LBB2_5:
	movq	%rcx, %rax
	addq	$120, %rsp
	.cfi_def_cfa_offset 24
	popq	%rbx
	.cfi_def_cfa_offset 16
	popq	%r14
	.cfi_def_cfa_offset 8
	retq
.LBB2_1:
	.cfi_def_cfa_offset 144
	movq	%rcx, %r14
	movabsq	$numba_gil_ensure, %rcx
	leaq	108(%rsp), %rdi
	movl	%eax, %ebx
	callq	*%rcx
	testl	%ebx, %ebx
	jg	.LBB2_2
	movl	%ebx, %eax
	cmpl	$-1, %ebx
	je	.LBB2_4
	cmpl	$-3, %eax
	jne	.LBB2_3
	movabsq	$PyExc_StopIteration, %rdi
	movabsq	$PyErr_SetNone, %rax
	callq	*%rax
	jmp	.LBB2_4
.LBB2_3:
	movabsq	$PyExc_SystemError, %rdi
	movabsq	$".const.unknown error when calling native function.2", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
.LBB2_4:
	movabsq	$".const.<numba.core.cpu.CPUContext>", %rdi
	movabsq	$PyUnicode_FromString, %rax
	callq	*%rax
	movq	%rax, %rbx
	movabsq	$PyErr_WriteUnraisable, %rax
	movq	%rbx, %rdi
	callq	*%rax
	movabsq	$Py_DecRef, %rax
	movq	%rbx, %rdi
	callq	*%rax
	movabsq	$numba_gil_release, %rax
	leaq	108(%rsp), %rdi
	callq	*%rax
	movq	%r14, %rcx
	jmp	.LBB2_5
.LBB2_2:
	movabsq	$PyErr_Clear, %rax
	callq	*%rax
.Lfunc_end2:
	.size	cfunc._ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj, .Lfunc_end2-cfunc._ZN4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj
	.cfi_endproc

	.weak	NRT_incref
	.p2align	4
	.type	NRT_incref,@function
NRT_incref:
	testq	%rdi, %rdi
	je	.LBB3_2
	lock		incq	(%rdi)
.LBB3_2:
	retq
.Lfunc_end3:
	.size	NRT_incref, .Lfunc_end3-NRT_incref

	.weak	NRT_decref
	.p2align	4
	.type	NRT_decref,@function
NRT_decref:
	.cfi_startproc
	testq	%rdi, %rdi
	je	.LBB4_2
	#MEMBARRIER
	lock		decq	(%rdi)
	je	.LBB4_3
.LBB4_2:
	retq
.LBB4_3:
	movabsq	$NRT_MemInfo_call_dtor, %rax
	#MEMBARRIER
	jmpq	*%rax
.Lfunc_end4:
	.size	NRT_decref, .Lfunc_end4-NRT_decref
	.cfi_endproc

	.type	.const._join,@object
	.section	.lrodata,"al",@progbits
.const._join:
	.asciz	"_join"
	.size	.const._join, 6

	.type	_ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj,@object
	.comm	_ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj,8,8
	.type	".const.missing Environment: _ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj",@object
	.p2align	4, 0x0
".const.missing Environment: _ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj":
	.asciz	"missing Environment: _ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj"
	.size	".const.missing Environment: _ZN08NumbaEnv4ntt05_joinB2v6B52c8tJTIeFIjxB2IKSgI4CrvSCKg1MMfAwK4LJISUWsIgmAA_3d_3dE5ArrayIjLi1E1C7mutable7alignedE5ArrayIjLi1E1C7mutable7alignedEjjj", 171

	.type	".const.can't unbox array from PyObject into native value.  The object maybe of a different type",@object
	.p2align	4, 0x0
".const.can't unbox array from PyObject into native value.  The object maybe of a different type":
	.asciz	"can't unbox array from PyObject into native value.  The object maybe of a different type"
	.size	".const.can't unbox array from PyObject into native value.  The object maybe of a different type", 89

	.type	".const.unknown error when calling native function",@object
	.p2align	4, 0x0
".const.unknown error when calling native function":
	.asciz	"unknown error when calling native function"
	.size	".const.unknown error when calling native function", 43

	.type	".const.unknown error when calling native function.2",@object
	.p2align	4, 0x0
".const.unknown error when calling native function.2":
	.asciz	"unknown error when calling native function"
	.size	".const.unknown error when calling native function.2", 43

	.type	".const.<numba.core.cpu.CPUContext>",@object
	.p2align	4, 0x0
".const.<numba.core.cpu.CPUContext>":
	.asciz	"<numba.core.cpu.CPUContext>"
	.size	".const.<numba.core.cpu.CPUContext>", 28

	.type	_ZN08NumbaEnv5numba7cpython8builtins6ol_min12_3clocals_3e4implB2v3B42c8tJTIeFIjxB2IKSgI4CrvQClcaMQ5hEEUSJJgA_3dE15StarArgUniTupleIjLi2EE,@object
	.comm	_ZN08NumbaEnv5numba7cpython8builtins6ol_min12_3clocals_3e4implB2v3B42c8tJTIeFIjxB2IKSgI4CrvQClcaMQ5hEEUSJJgA_3dE15StarArgUniTupleIjLi2EE,8,8
	.section	".note.GNU-stack","",@progbits
