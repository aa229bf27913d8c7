//! A device without the memory that is asked of it: an error, and no embeddings of something else.

use burn::backend::Wgpu;
use burn::backend::wgpu::{RuntimeOptions, WgpuDevice, WgpuSetup, init_device};
use burn::tensor::{Tensor, read_sync};
use sentence_burn::error::{DeviceError, Error};
use sentence_burn::search::semantic_search;
use sentence_burn::wgpu::{
    DeviceDescriptor, Features, Instance, InstanceDescriptor, Limits, RequestAdapterOptions,
};
use sentence_burn::{EncodeOptions, SentenceTransformer};

use crate::fixture::{json, path, strings};

/// A device of the machine's that has buffers of so many bytes, at most.
fn device_with(largest: u64) -> WgpuDevice {
    let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
    let adapter = read_sync(instance.request_adapter(&RequestAdapterOptions::default())).unwrap();
    let kernels = Features::SHADER_F64
        | Features::SHADER_INT64
        | Features::SHADER_FLOAT32_ATOMIC
        | Features::SUBGROUP
        | Features::TIMESTAMP_QUERY;
    let (device, queue) = read_sync(adapter.request_device(&DeviceDescriptor {
        required_features: adapter.features() & kernels,
        required_limits: Limits {
            max_buffer_size: largest,
            max_storage_buffer_binding_size: largest as _,
            ..adapter.limits()
        },
        ..DeviceDescriptor::default()
    }))
    .unwrap();
    let setup = WgpuSetup {
        backend: adapter.get_info().backend,
        instance,
        adapter,
        device,
        queue,
    };
    init_device(setup, RuntimeOptions::default())
}

/// What a device was at when it failed or was lost, and what would help.
fn told(error: &Error) -> (&str, &str) {
    match error {
        Error::Device(
            DeviceError::Failed { action, advice, .. } | DeviceError::Lost { action, advice },
        ) => (action, advice),
        other => panic!("{other}"),
    }
}

#[test]
fn batches_that_do_not_fit_into_a_device_are_an_error_that_says_what_would() {
    let folder = path("tiny_bert/dense");
    let device = device_with(1 << 18);
    let model = SentenceTransformer::<Wgpu>::load(&folder, &device).unwrap();
    let texts = strings(&json("tiny_bert/expected.json")["texts"]);
    let texts: Vec<String> = texts.iter().cycle().take(4096).cloned().collect();
    let options = EncodeOptions {
        batch_size: 4096,
        ..EncodeOptions::default()
    };
    let error = model.encode_with(&texts, &options).unwrap_err();
    println!("{error}");
    let (action, advice) = told(&error);
    assert_eq!(action, "encoding");
    assert!(
        advice.contains("smaller `batch_size` than 4096"),
        "{advice}"
    );
    // Whether Burn goes on after it or not, nothing is given that was not computed.
    let error = model.encode_tokens(&texts, &options).unwrap_err();
    assert_eq!(told(&error).0, "encoding");
    let mut stream = model.encode_stream(&texts, &options).unwrap();
    let error = stream.next().unwrap().unwrap_err();
    assert_eq!(told(&error).0, "encoding");
    assert!(stream.next().is_none());
}

#[test]
fn scores_that_do_not_fit_into_a_device_are_an_error() {
    let device = device_with(1 << 18);
    let rows = Tensor::<Wgpu, 2>::ones([2048, 16], &device);
    let error = semantic_search(rows.clone(), rows, &Default::default()).unwrap_err();
    println!("{error}");
    assert_eq!(told(&error).0, "comparing embeddings");
}

#[test]
fn a_model_that_does_not_fit_into_a_device_is_not_loaded() {
    let device = device_with(1 << 12);
    let error = SentenceTransformer::<Wgpu>::load(path("tiny_bert/dense"), &device).unwrap_err();
    println!("{error}");
    assert_eq!(told(&error).0, "loading the model");
}

#[cfg(feature = "train")]
#[test]
fn a_training_step_that_does_not_fit_into_a_device_is_an_error_that_says_what_would() {
    use crate::training::{Model, curve_arguments, mnrl, pairs};
    use sentence_burn::LoadAdapterOptions;
    use sentence_burn::training::{Trainer, TrainingArguments};

    let device = device_with(1 << 16);
    let mut model = Model::load(path("tiny_bert/v6"), &device).unwrap();
    let trainable = LoadAdapterOptions {
        is_trainable: true,
        ..Default::default()
    };
    let initial = path("training_curve/initial");
    model.load_adapter_with(initial, &trainable).unwrap();
    let output = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        per_device_train_batch_size: 64,
        ..curve_arguments(output.path())
    };
    let result = Trainer::new(model, arguments, pairs(), mnrl()).train();
    let error = result.map(|trained| trained.steps).unwrap_err();
    println!("{error}");
    let (action, advice) = told(&error);
    assert_eq!(action, "training");
    assert!(advice.contains("per_device_train_batch_size"), "{advice}");
}
