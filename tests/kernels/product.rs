//! Matrix products: every direction, epilogue and form against the reference on ragged shapes; plans are made once; what
//! cuBLASLt refuses is done otherwise or said.

use crate::harness::{Twin, assert_close, check_operation, device};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::Cuda;
use bubblebench::ops::cuda::product::{ColumnSums, Form, Fusion, ProductPlan};
use bubblebench::ops::work::{Epilogue, Operation, Product};
use bubblebench::ops::{DType, ForwardEpilogue, InputEpilogue, Linear, Ops, WeightEpilogue};
use bubblebench::stats::SplitMix;
use softgpu::{Arg, Buffer, Config, Order};
use std::process::Command;

const FUSIONS: [Fusion; 3] = [Fusion::Fastest, Fusion::Fused, Fusion::Separate];

const CALLS: [(Product, Epilogue); 7] = [
    (Product::Forward, Epilogue::None),
    (Product::Forward, Epilogue::Bias),
    (Product::Forward, Epilogue::BiasGelu),
    (Product::ToInputs, Epilogue::None),
    (Product::ToInputs, Epilogue::GeluBackward),
    (Product::ToWeights, Epilogue::None),
    (Product::ToWeights, Epilogue::BiasGradient),
];

/// From 1 on, a third of them multiples of 8 (the fused forms' rule); sometimes wide.
fn size(random: &mut SplitMix) -> usize {
    match random.below(6) {
        0 | 1 => 8 * (1 + random.below(12)),
        2 => 1 + random.below(260),
        3 => 1 + random.below(4),
        _ => 1 + random.below(70),
    }
}

/// Results of a few elements may be nothing but what cancelled: each has enough for its largest to be a scale.
fn linear(random: &mut SplitMix) -> Linear {
    loop {
        let shape =
            Linear { accumulate: random.below(3) == 0, ..Linear::new(size(random), size(random), size(random)) };
        let Linear { rows, inputs, outputs, .. } = shape;
        if [rows * inputs, inputs * outputs, rows * outputs].iter().all(|&len| len >= 32) {
            return shape;
        }
    }
}

#[test]
fn products_agree_with_the_reference_in_every_form() {
    for dtype in DTYPES {
        let mut random = SplitMix(0x9e0d + dtype.bytes() as u64 + u64::from(dtype == DType::F16));
        let mut cuda = device(dtype);
        for i in 0..shapes_per_dtype() + 10 {
            let (product, epilogue) = CALLS[i % CALLS.len()];
            let operation = Operation::Linear { product, shape: linear(&mut random), epilogue };
            let seed = random.next_u64();
            for fusion in FUSIONS {
                cuda.set_fusion(fusion);
                check_operation(&mut cuda, operation, dtype, seed);
            }
        }
    }
}

/// One row, one input, one output, and each alone.
#[test]
fn products_of_one_element_agree() {
    for dtype in DTYPES {
        let mut cuda = device(dtype);
        for (rows, inputs, outputs) in [(1, 1, 1), (1, 1, 65), (1, 65, 40), (65, 1, 33), (40, 33, 1), (129, 1, 1)] {
            for (product, epilogue) in CALLS {
                let operation = Operation::Linear { product, shape: Linear::new(rows, inputs, outputs), epilogue };
                // Separate forms round what goes between the kernels, which one element alone may show.
                cuda.set_fusion(Fusion::Fused);
                check_operation(&mut cuda, operation, dtype, 7);
            }
        }
    }
}

/// Into what is there already: the plan's trials must not add to it. Gradients in fp32 as well as in the data's type.
#[test]
fn products_accumulate_once_also_in_fp32() {
    for dtype in DTYPES {
        for (i, fusion) in FUSIONS.into_iter().cycle().take(30).enumerate() {
            let mut twin = Twin::new(dtype, 0xacc + i as u64);
            twin.cuda.set_fusion(fusion);
            let shape = Linear { outputs: 32 + size(&mut twin.random), ..linear(&mut twin.random) }.accumulating();
            let wide = |yes: bool| if yes { DType::F32 } else { dtype };
            let mut dw = twin.tensor(shape.outputs * shape.inputs, wide(i % 2 == 0), 0.0, 1.0);
            let mut dbias = twin.tensor(shape.outputs, wide(i % 4 < 2), 0.0, 1.0);
            let (dy, x) = (twin.random(shape.rows * shape.outputs), twin.random(shape.rows * shape.inputs));
            let epilogue = WeightEpilogue::Bias { dbias: &mut dbias.cuda };
            twin.cuda.linear_to_weights(shape, &mut dw.cuda, &dy.cuda, &x.cuda, epilogue);
            let epilogue = WeightEpilogue::Bias { dbias: &mut dbias.reference };
            twin.reference.linear_to_weights(shape, &mut dw.reference, &dy.reference, &x.reference, epilogue);
            twin.cuda.synchronize().unwrap();
            twin.check(&format!("dw of {shape:?} {fusion:?}"), &dw);
            twin.check(&format!("dbias of {shape:?} {fusion:?}"), &dbias);
        }
    }
}

#[test]
fn forward_and_to_inputs_accumulate_once() {
    for dtype in DTYPES {
        for (i, fusion) in FUSIONS.into_iter().cycle().take(30).enumerate() {
            let mut twin = Twin::new(dtype, 0xf0 + i as u64);
            twin.cuda.set_fusion(fusion);
            let shape = linear(&mut twin.random).accumulating();
            let (mut y, mut dx) = (twin.random(shape.rows * shape.outputs), twin.random(shape.rows * shape.inputs));
            let (x, w) = (twin.random(shape.rows * shape.inputs), twin.random(shape.outputs * shape.inputs));
            let (bias, dy) = (twin.random(shape.outputs), twin.random(shape.rows * shape.outputs));
            let mut pre = twin.poisoned(shape.rows * shape.outputs, dtype);
            // The GELU of the forward product is that of `products_agree…`; here its input matters.
            let e = ForwardEpilogue::BiasGelu { bias: &bias.cuda, pre: &mut pre.cuda };
            twin.cuda.linear_forward(shape, &mut y.cuda, &x.cuda, &w.cuda, e);
            let e = ForwardEpilogue::BiasGelu { bias: &bias.reference, pre: &mut pre.reference };
            twin.reference.linear_forward(shape, &mut y.reference, &x.reference, &w.reference, e);
            twin.check(&format!("pre of {shape:?} {fusion:?}"), &pre);
            twin.check(&format!("y of {shape:?} {fusion:?}"), &y);
            let e = InputEpilogue::Gelu { pre: &x.cuda };
            twin.cuda.linear_to_inputs(shape, &mut dx.cuda, &dy.cuda, &w.cuda, e);
            let e = InputEpilogue::Gelu { pre: &x.reference };
            twin.reference.linear_to_inputs(shape, &mut dx.reference, &dy.reference, &w.reference, e);
            twin.cuda.synchronize().unwrap();
            twin.check(&format!("dx of {shape:?} {fusion:?}"), &dx);
        }
    }
}

/// A shape no other test of this process uses, run once and again.
fn run(cuda: &mut Cuda, product: Product, shape: Linear, epilogue: Epilogue) -> ProductPlan {
    check_operation(cuda, Operation::Linear { product, shape, epilogue }, DType::Bf16, 3);
    cuda.product_plan(product, shape, epilogue).unwrap()
}

#[test]
fn a_plan_is_made_once_and_tells_what_it_chose() {
    let (mut cuda, shape) = (device(DType::Bf16), Linear::new(301, 24, 40));
    assert_eq!(cuda.product_plan(Product::Forward, shape, Epilogue::BiasGelu), None);
    let plan = run(&mut cuda, Product::Forward, shape, Epilogue::BiasGelu);
    assert!(plan.candidates.iter().any(|c| c.form == plan.form));
    assert_eq!((plan.dtype, plan.output), (DType::Bf16, DType::Bf16));
    for candidate in &plan.candidates {
        assert!(candidate.offered >= candidate.timed && candidate.timed >= 1, "{candidate:?}");
        assert!(candidate.time_ns.is_some_and(|ns| ns > 0.0));
    }
    let again = run(&mut cuda, Product::Forward, shape, Epilogue::BiasGelu);
    assert_eq!(plan, again, "a second run made a plan");
    // Another stream takes what was found, and computes the same bits.
    let mut other = device(DType::Bf16);
    assert_eq!(run(&mut other, Product::Forward, shape, Epilogue::BiasGelu), plan);
}

/// Where the software library has rules, they are cuBLASLt's: auxiliary tensors want a leading dimension divisible by 8.
#[test]
fn what_cublaslt_refuses_is_done_by_kernels() {
    let mut cuda = device(DType::Bf16);
    if !cuda.facts().software {
        return eprintln!("skipped: which forms a real cuBLASLt offers is its own affair");
    }
    let forms = |plan: &ProductPlan| plan.candidates.iter().map(|c| c.form).collect::<Vec<_>>();
    let even = run(&mut cuda, Product::Forward, Linear::new(307, 16, 48), Epilogue::BiasGelu);
    assert_eq!(forms(&even), [Form::Fused, Form::BiasFused, Form::Separate]);
    let odd = run(&mut cuda, Product::Forward, Linear::new(307, 16, 49), Epilogue::BiasGelu);
    assert_eq!(forms(&odd), [Form::BiasFused, Form::Separate]);
    let odd = run(&mut cuda, Product::ToInputs, Linear::new(307, 17, 48), Epilogue::GeluBackward);
    assert_eq!(forms(&odd), [Form::Separate]);
}

#[test]
fn wrong_operands_are_refused() {
    let mut cuda = device(DType::Bf16);
    let shape = Linear::new(4, 8, 16);
    let (x, w) = (cuda.alloc(32, DType::Bf16).unwrap(), cuda.alloc(127, DType::Bf16).unwrap());
    let mut y = cuda.alloc(64, DType::Bf16).unwrap();
    cuda.linear_forward(shape, &mut y, &x, &w, ForwardEpilogue::None);
    let text = cuda.synchronize().unwrap_err().to_string();
    assert!(text.contains("linear_forward: w holds 127 bf16; 128 bf16 are needed"), "{text}");
    let (wide, w) = (cuda.alloc(32, DType::F32).unwrap(), cuda.alloc(128, DType::Bf16).unwrap());
    cuda.linear_forward(shape, &mut y, &wide, &w, ForwardEpilogue::None);
    assert!(cuda.synchronize().unwrap_err().to_string().contains("x holds 32 f32"));
    let (bias, mut narrow) = (cuda.alloc(16, DType::Bf16).unwrap(), cuda.alloc(64, DType::F32).unwrap());
    cuda.linear_forward(shape, &mut narrow, &x, &w, ForwardEpilogue::Bias(&bias));
    assert!(cuda.synchronize().unwrap_err().to_string().contains("the result holds 64 f32"));
    cuda.linear_forward(Linear::new(4, 0, 16), &mut y, &x, &w, ForwardEpilogue::None);
    assert!(cuda.synchronize().unwrap_err().to_string().contains("a sum of no terms"));
    cuda.linear_forward(Linear::new(0, 8, 16), &mut y, &x, &w, ForwardEpilogue::None);
    cuda.synchronize().unwrap();
}

/// A captured product runs again from the graph, bias gradient and all; a shape that never ran is not planned in a capture.
#[test]
fn captured_products_run_again() {
    for fusion in FUSIONS {
        let mut twin = Twin::new(DType::F16, 77);
        twin.cuda.set_fusion(fusion);
        let shape = Linear::new(40, 24, 48).accumulating();
        let mut dw = twin.tensor(shape.outputs * shape.inputs, DType::F32, 0.0, 1.0);
        let mut dbias = twin.tensor(shape.outputs, DType::F32, 0.0, 1.0);
        let (dy, x) = (twin.random(shape.rows * shape.outputs), twin.random(shape.rows * shape.inputs));
        let mut run = |cuda: &mut Cuda| {
            let epilogue = WeightEpilogue::Bias { dbias: &mut dbias.cuda };
            cuda.linear_to_weights(shape, &mut dw.cuda, &dy.cuda, &x.cuda, epilogue);
            Ok(())
        };
        run(&mut twin.cuda).unwrap();
        twin.cuda.synchronize().unwrap();
        let graph = twin.cuda.capture(&mut run).unwrap();
        for _ in 0..2 {
            graph.launch(&mut twin.cuda).unwrap();
        }
        twin.cuda.synchronize().unwrap();
        for _ in 0..3 {
            let epilogue = WeightEpilogue::Bias { dbias: &mut dbias.reference };
            twin.reference.linear_to_weights(shape, &mut dw.reference, &dy.reference, &x.reference, epilogue);
        }
        twin.check(&format!("dw, {fusion:?}"), &dw);
        twin.check(&format!("dbias, {fusion:?}"), &dbias);
    }
    let mut cuda = device(DType::Bf16);
    let (x, w) = (cuda.alloc(64, DType::Bf16).unwrap(), cuda.alloc(64, DType::Bf16).unwrap());
    let mut y = cuda.alloc(64, DType::Bf16).unwrap();
    let refused = cuda.capture(|cuda| {
        cuda.linear_forward(Linear::new(5, 9, 7), &mut y, &x, &w, ForwardEpilogue::None);
        Ok(())
    });
    let text = refused.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(text.contains("cannot be made while a graph is captured"), "{text}");
}

/// Column sums on fibers: the same bits in any order of lanes and warps, right also off a 16-byte boundary.
#[test]
fn column_sums_do_not_depend_on_the_order_of_threads() {
    let mut random = SplitMix(61);
    for shift in [0, 1] {
        for _ in 0..10 {
            let (rows, cols) = (1 + random.below(200), 1 + random.below(300));
            let dy: Vec<f32> = (0..rows * cols).map(|_| random.symmetric() as f32).collect();
            let sums = |order| column_sums(&dy, [rows, cols], shift, order);
            let in_turn = sums(Order::InTurn);
            let want: Vec<f64> =
                (0..cols).map(|c| 1.0 + (0..rows).map(|r| f64::from(dy[r * cols + c])).sum::<f64>()).collect();
            assert_close(&format!("sums of {rows}×{cols}"), &in_turn, &want, DType::F32);
            for seed in 0..3 {
                assert_eq!(in_turn, sums(Order::Shuffled(seed)), "{rows}×{cols}");
            }
        }
    }
}

fn column_sums(dy: &[f32], [rows, cols]: [usize; 2], shift: usize, order: Order) -> Vec<f64> {
    let plan = ColumnSums::new(rows, cols, DType::F32, 4);
    let mut dy = Buffer::from_slice_shifted(dy, shift);
    let mut dbias = Buffer::from_slice_shifted(&vec![1.0f32; cols], shift);
    let mut partial = Buffer::<f32>::poisoned(plan.partial_len(cols));
    let (r, c, chunks) = (Arg::I32(rows as i32), Arg::I32(cols as i32), Arg::I32(plan.chunks as i32));
    for (kernel, geometry, arguments) in [
        ("bias_gradient_partial_f32", plan.partial, [partial.arg(), dy.arg(), r, c]),
        ("bias_gradient_reduce_f32", plan.reduce, [dbias.arg(), partial.arg(), chunks, c]),
    ] {
        let config = Config::new(geometry.grid, geometry.block).order(order);
        // SAFETY: every buffer has the length the kernel's contract asks for.
        unsafe { softgpu::launch(kernel, config, &arguments) }.unwrap();
    }
    assert!(partial.intact() && dbias.intact() && dy.intact());
    dbias.as_slice().iter().map(|&v| f64::from(v)).collect()
}

// --- in processes of their own: the loader keeps what it has loaded, and the environment is everybody's ---------------

const CHILD: &str = "BUBBLEBENCH_TEST_PRODUCT";

/// One product, and what came of it: the forms and algorithms of its plan, or the error.
#[test]
fn child_runs_a_product() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let (mut cuda, shape) = (device(DType::Bf16), Linear::new(16, 16, 16));
    let (x, w) = (cuda.alloc(256, DType::Bf16).unwrap(), cuda.alloc(256, DType::Bf16).unwrap());
    let (mut y, bias) = (cuda.alloc(256, DType::Bf16).unwrap(), cuda.alloc(16, DType::Bf16).unwrap());
    let mut pre = cuda.alloc(256, DType::Bf16).unwrap();
    cuda.linear_forward(shape, &mut y, &x, &w, ForwardEpilogue::BiasGelu { bias: &bias, pre: &mut pre });
    match cuda.synchronize() {
        Err(error) => println!("\nCHILD error: {error}"),
        Ok(()) => {
            let plan = cuda.product_plan(Product::Forward, shape, Epilogue::BiasGelu).unwrap();
            let forms: Vec<_> = plan.candidates.iter().map(|c| format!("{:?}/{}", c.form, c.offered)).collect();
            println!("\nCHILD forms: {}", forms.join(" "));
        }
    }
}

fn child(set: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "product::child_runs_a_product", "--nocapture"]).env(CHILD, "1");
    set(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("CHILD "));
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).to_string()
}

fn with_fault(fault: &str) -> String {
    child(|command| {
        command.env("BUBBLEBENCH_TEST_DEVICE", "softgpu").env("SOFTGPU_CUBLASLT_FAULT", fault);
    })
}

#[test]
fn faults_of_the_library_end_in_another_form_or_a_sentence() {
    assert_eq!(with_fault("none"), "forms: Fused/10 BiasFused/10 Separate/10");
    assert_eq!(with_fault("few-algorithms"), "forms: Fused/1 BiasFused/1 Separate/1");
    assert_eq!(with_fault("no-epilogue"), "forms: Separate/10");
    for (fault, says) in [
        ("not-initialized", "cuBLASLt does not start: CUBLAS_STATUS_NOT_INITIALIZED"),
        ("no-algorithms", "cuBLASLt has no algorithm for forward of Linear { rows: 16"),
        ("execution-failed", "cuBLASLt cannot run a product: CUBLAS_STATUS_EXECUTION_FAILED"),
    ] {
        let line = with_fault(fault);
        assert!(line.starts_with("error: ") && line.contains(says) && line.contains("; "), "{line}");
    }
}

/// pip and toolkits put the library where the loader does not look: found in CUDA_HOME all the same; and where it is
/// nowhere, the line that installs it.
#[test]
fn the_library_is_found_off_the_loaders_path_or_missed_in_a_sentence() {
    let folder = std::env::temp_dir().join(format!("bubblebench-cublaslt-{}", std::process::id()));
    let (path, home) = (folder.join("path"), folder.join("toolkit"));
    for needed in [&path, &home.join("lib")] {
        std::fs::create_dir_all(needed).unwrap();
    }
    let copy = |name: &str, to: &std::path::Path| {
        std::fs::copy(softgpu::device::libraries().join(name), to.join(name)).unwrap();
    };
    copy("libcuda.so.1", &path);
    copy("libcublasLt.so.13", &home.join("lib"));
    let on = |home: &std::path::Path| {
        child(|command| {
            // The loader knows the driver and nothing else; no Python has packages.
            command.env("BUBBLEBENCH_TEST_DEVICE", "gpu").env("LD_LIBRARY_PATH", &path);
            command.env("CUDA_HOME", home).env("VIRTUAL_ENV", &folder).env_remove("SOFTGPU_CUBLASLT_FAULT");
        })
    };
    let (found, missed) = (on(&home), on(&folder));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(found.starts_with("forms: "), "{found}");
    if missed.starts_with("forms: ") {
        return eprintln!("skipped: this machine's loader knows a cuBLASLt of its own");
    }
    assert!(missed.contains("no cuBLASLt") && missed.contains("pip install nvidia-cublas"), "{missed}");
}
