//! A program that has a wgpu device of its own shares it with this crate: both compute on one
//! device by one queue, and the program reads embeddings where they lie, without a copy.
//!
//! ```text
//! cargo run --release --features wgpu --example shared_device
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::mpsc;

use burn::backend::Wgpu;
use burn::backend::wgpu::{
    CubeBackend, RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuSetup, init_device,
};
use burn::tensor::{Tensor, read_sync};
use sentence_burn::wgpu::{
    Adapter, BindGroupDescriptor, BindGroupEntry, Buffer, BufferDescriptor, BufferUsages,
    ComputePipelineDescriptor, Device, DeviceDescriptor, Features, Instance, InstanceDescriptor,
    MapMode, PollType, Queue, RequestAdapterOptions, ShaderModuleDescriptor, ShaderSource,
};
use sentence_burn::{EncodeOptions, SentenceTransformer};

const TEXTS: [&str; 4] = [
    "a young dog",
    "a puppy",
    "the science of life",
    "a large river",
];

/// The program's own work: the product of the first embedding with each.
const SHADER: &str = "
@group(0) @binding(0) var<storage, read> embeddings: array<f32>;
@group(0) @binding(1) var<storage, read_write> products: array<f32>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) text: vec3<u32>, @builtin(num_workgroups) texts: vec3<u32>) {
    let dim = arrayLength(&embeddings) / texts.x;
    var sum = 0.0;
    for (var i = 0u; i < dim; i += 1u) {
        sum += embeddings[i] * embeddings[text.x * dim + i];
    }
    products[text.x] = sum;
}
";

fn main() -> Result<(), Box<dyn Error>> {
    // What the program has.
    let program = Program::start()?;
    println!("on {}", program.adapter.get_info().name);

    // It hands its device over, once, and goes on using it.
    let device: WgpuDevice = init_device(program.setup(), RuntimeOptions::default());
    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/encoder");
    let model = SentenceTransformer::<Wgpu>::load(encoder, &device)?;
    let options = EncodeOptions {
        normalize: true,
        ..EncodeOptions::default()
    };

    let embeddings = model.encode_with(&TEXTS, &options)?;
    let products = program.products(embeddings.clone())?;
    let again = model.encode_with(&TEXTS, &options)?;

    for (text, product) in TEXTS.iter().zip(&products) {
        println!("{product:.4}  {text}");
    }
    let query = embeddings.clone().narrow(0, 0, 1);
    let similarities: Vec<f32> = model.similarity(query, again)?.into_data().iter().collect();
    let differences = products
        .iter()
        .zip(&similarities)
        .map(|(a, b)| (a - b).abs());
    let difference = differences.fold(0.0, f32::max);
    println!("the program's products and the model's differ by {difference:e}");
    match difference < 1e-4 {
        true => Ok(()),
        false => Err("the program and the model do not see the same embeddings".into()),
    }
}

/// A program with a device, a queue and work of its own.
struct Program {
    instance: Instance,
    adapter: Adapter,
    device: Device,
    queue: Queue,
}

impl Program {
    fn start() -> Result<Self, Box<dyn Error>> {
        let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
        let adapter = read_sync(instance.request_adapter(&RequestAdapterOptions::default()))
            .map_err(|e| format!("no GPU: install its Vulkan driver ({e})"))?;
        // Burn's kernels use what the adapter has of these, and its largest buffers: a device
        // that is to be shared asks for them.
        let kernels = Features::SHADER_F16
            | Features::SHADER_F64
            | Features::SHADER_INT64
            | Features::SHADER_FLOAT32_ATOMIC
            | Features::SUBGROUP
            | Features::TIMESTAMP_QUERY;
        let (device, queue) = read_sync(adapter.request_device(&DeviceDescriptor {
            required_features: adapter.features() & kernels,
            required_limits: adapter.limits(),
            ..DeviceDescriptor::default()
        }))?;
        Ok(Self {
            instance,
            adapter,
            device,
            queue,
        })
    }

    /// What Burn is given: clones are handles to the same device and queue.
    fn setup(&self) -> WgpuSetup {
        WgpuSetup {
            instance: self.instance.clone(),
            adapter: self.adapter.clone(),
            device: self.device.clone(),
            queue: self.queue.clone(),
            backend: self.adapter.get_info().backend,
        }
    }

    /// Runs the program's shader on embeddings where Burn keeps them.
    fn products(&self, embeddings: Tensor<Wgpu, 2>) -> Result<Vec<f32>, Box<dyn Error>> {
        let [texts, _] = embeddings.dims();
        // Out of Burn's fusion, then out of CubeCL: what is behind a tensor is a buffer.
        let fused = embeddings.into_primitive().tensor();
        let client = fused.client.clone();
        let tensor = client.resolve_tensor_float::<CubeBackend<WgpuRuntime, f32, i32, u32>>(fused);
        let held = tensor.client.get_resource(tensor.handle.clone())?;

        let products = self.buffer(texts, BufferUsages::STORAGE | BufferUsages::COPY_SRC);
        let module = self.device.create_shader_module(ShaderModuleDescriptor {
            label: None,
            source: ShaderSource::Wgsl(SHADER.into()),
        });
        let pipeline = self
            .device
            .create_compute_pipeline(&ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            });
        let group = self.device.create_bind_group(&BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                BindGroupEntry {
                    binding: 0,
                    resource: held.resource().as_wgpu_bind_resource(),
                },
                BindGroupEntry {
                    binding: 1,
                    resource: products.as_entire_binding(),
                },
            ],
        });
        // What Burn has queued is submitted before, so that the queue's order is the data's.
        read_sync(tensor.client.sync())?;
        let mut commands = self.device.create_command_encoder(&Default::default());
        let mut pass = commands.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(texts as u32, 1, 1);
        drop(pass);
        let read = self.buffer(texts, BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        commands.copy_buffer_to_buffer(&products, 0, &read, 0, products.size());
        self.queue.submit([commands.finish()]);
        self.values(&read)
    }

    fn buffer(&self, values: usize, usage: BufferUsages) -> Buffer {
        self.device.create_buffer(&BufferDescriptor {
            label: None,
            size: (values * size_of::<f32>()) as u64,
            usage,
            mapped_at_creation: false,
        })
    }

    fn values(&self, buffer: &Buffer) -> Result<Vec<f32>, Box<dyn Error>> {
        let (done, wait) = mpsc::channel();
        buffer.map_async(MapMode::Read, .., move |result| {
            // Whoever waits is right behind this.
            let _ = done.send(result);
        });
        self.device.poll(PollType::wait_indefinitely())?;
        wait.recv()??;
        let bytes = buffer.get_mapped_range(..);
        let values = bytes.chunks_exact(size_of::<f32>());
        Ok(values
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }
}
