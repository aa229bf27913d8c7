//! A CubeCL runtime of two devices that add up what they hold, and send it to each other, on
//! the host, where CUDA's do by NCCL. All else is WGPU's, of which each device is a copy.

use std::sync::Arc;

use burn::tensor::backend::DeviceOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::backtrace::BackTrace;
use burn_cubecl::cubecl::bytes::Bytes;
use burn_cubecl::cubecl::client::ComputeClient;
use burn_cubecl::cubecl::device::{Device, DeviceId, DeviceService, ServerUtilitiesHandle};
use burn_cubecl::cubecl::future::{DynFut, block_on};
use burn_cubecl::cubecl::ir::{ElemType, FloatKind, TargetProperties};
use burn_cubecl::cubecl::profile::ProfileDuration;
use burn_cubecl::cubecl::server::{
    Binding, ComputeServer, CopyDescriptor, CubeCount, ExecutionMode, Handle, KernelArguments,
    ProfileError, ProfilingToken, ReduceOperation, ServerCommunication, ServerError,
    ServerUtilities,
};
use burn_cubecl::cubecl::stream_id::StreamId;
use burn_cubecl::cubecl::wgpu::{WgpuDevice, WgpuRuntime, WgpuServer};
use burn_cubecl::cubecl::zspace::{Shape, Strides};
use burn_cubecl::cubecl::{MemoryAllocationMode, MemoryUsage, Runtime};
use burn_fusion::Fusion;
use cubecl_runtime::logging::ServerLogger;
use cubecl_runtime::memory_management::ManagedMemoryHandle;
use cubecl_runtime::storage::{ComputeStorage, ManagedResource};

use crate::host;

/// The backend on it, of the same layers as Burn's `Cuda`.
pub(crate) type StandIn = Fusion<CubeBackend<StandInRuntime, f32, i32, u32>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StandInDevice(pub(crate) u16);

/// Apart from the kinds of devices that WGPU has.
const KIND: u16 = 100;

impl Device for StandInDevice {
    fn from_id(id: DeviceId) -> Self {
        Self(id.index_id)
    }

    fn to_id(&self) -> DeviceId {
        DeviceId::new(KIND, self.0)
    }
}

impl DeviceOps for StandInDevice {}

#[derive(Debug, Clone)]
pub(crate) struct StandInRuntime;

impl Runtime for StandInRuntime {
    type Compiler = <WgpuRuntime as Runtime>::Compiler;
    type Server = StandInServer;
    type Device = StandInDevice;

    fn client(device: &StandInDevice) -> ComputeClient<Self> {
        ComputeClient::load(device)
    }

    fn name(_: &ComputeClient<Self>) -> &'static str {
        "stand-in"
    }

    fn max_cube_count() -> (u32, u32, u32) {
        WgpuRuntime::max_cube_count()
    }

    fn can_read_tensor(shape: &Shape, strides: &Strides) -> bool {
        WgpuRuntime::can_read_tensor(shape, strides)
    }

    fn target_properties() -> TargetProperties {
        WgpuRuntime::target_properties()
    }

    fn enumerate_devices(_: u16, _: &<StandInServer as ComputeServer>::Info) -> Vec<DeviceId> {
        vec![StandInDevice(0).to_id(), StandInDevice(1).to_id()]
    }
}

#[derive(Debug)]
pub(crate) struct StandInServer {
    inner: WgpuServer,
    device: DeviceId,
    utilities: Arc<ServerUtilities<Self>>,
    /// How often it has added up.
    sums: u64,
}

impl DeviceService for StandInServer {
    fn init(device: DeviceId) -> Self {
        let inner = WgpuServer::init(WgpuDevice::DefaultDevice.to_id());
        let of_inner = ComputeServer::utilities(&inner);
        let properties = of_inner.properties.clone();
        let layout = Layout::new(properties.memory.alignment as usize);
        let logger = of_inner.logger.clone();
        Self {
            utilities: Arc::new(ServerUtilities::new(
                properties,
                logger,
                of_inner.info,
                layout,
            )),
            inner,
            device,
            sums: 0,
        }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

type Layout = <WgpuServer as ComputeServer>::MemoryLayoutPolicy;
type Storage = <WgpuServer as ComputeServer>::Storage;

impl ComputeServer for StandInServer {
    type Kernel = <WgpuServer as ComputeServer>::Kernel;
    type Info = <WgpuServer as ComputeServer>::Info;
    type MemoryLayoutPolicy = Layout;
    type Storage = Storage;

    fn initialize_memory(&mut self, memory: ManagedMemoryHandle, size: u64, stream: StreamId) {
        self.inner.initialize_memory(memory, size, stream);
    }

    fn staging(&mut self, sizes: &[usize], stream: StreamId) -> Result<Vec<Bytes>, ServerError> {
        self.inner.staging(sizes, stream)
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.inner.logger()
    }

    fn utilities(&self) -> Arc<ServerUtilities<Self>> {
        self.utilities.clone()
    }

    fn read(
        &mut self,
        descriptors: Vec<CopyDescriptor>,
        stream: StreamId,
    ) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        self.inner.read(descriptors, stream)
    }

    fn write(&mut self, descriptors: Vec<(CopyDescriptor, Bytes)>, stream: StreamId) {
        self.inner.write(descriptors, stream);
    }

    fn sync(&mut self, stream: StreamId) -> DynFut<Result<(), ServerError>> {
        self.inner.sync(stream)
    }

    fn get_resource(
        &mut self,
        binding: Binding,
        stream: StreamId,
    ) -> Result<ManagedResource<<Storage as ComputeStorage>::Resource>, ServerError> {
        self.inner.get_resource(binding, stream)
    }

    #[expect(unsafe_code, reason = "the trait has it so")]
    unsafe fn launch(
        &mut self,
        kernel: Self::Kernel,
        count: CubeCount,
        bindings: KernelArguments,
        mode: ExecutionMode,
        stream: StreamId,
    ) {
        // SAFETY: the caller's promise is handed on.
        unsafe { self.inner.launch(kernel, count, bindings, mode, stream) }
    }

    fn flush(&mut self, stream: StreamId) -> Result<(), ServerError> {
        self.inner.flush(stream)
    }

    fn memory_usage(&mut self, stream: StreamId) -> Result<MemoryUsage, ServerError> {
        self.inner.memory_usage(stream)
    }

    fn memory_cleanup(&mut self, stream: StreamId) {
        self.inner.memory_cleanup(stream);
    }

    fn start_profile(&mut self, stream: StreamId) -> Result<ProfilingToken, ServerError> {
        self.inner.start_profile(stream)
    }

    fn end_profile(
        &mut self,
        stream: StreamId,
        token: ProfilingToken,
    ) -> Result<ProfileDuration, ProfileError> {
        self.inner.end_profile(stream, token)
    }

    fn allocation_mode(&mut self, mode: MemoryAllocationMode, stream: StreamId) {
        self.inner.allocation_mode(mode, stream);
    }
}

impl ServerCommunication for StandInServer {
    const SERVER_COMM_ENABLED: bool = false;

    fn comm_init(&mut self, _: Vec<DeviceId>) -> Result<(), ServerError> {
        Ok(())
    }

    /// What is added up is there when it is asked for.
    fn sync_collective(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn all_reduce(
        &mut self,
        source: Binding,
        target: Binding,
        elements: ElemType,
        stream: StreamId,
        operation: ReduceOperation,
        mut devices: Vec<DeviceId>,
    ) -> Result<(), ServerError> {
        if elements != ElemType::Float(FloatKind::F32) {
            return Err(failure(format!("{elements:?} is not added up here")));
        }
        if !host::adds_up(self.device) {
            return Ok(());
        }
        devices.sort();
        let read = block_on(self.inner.read(vec![as_bytes(source)], stream))?;
        let values = read.iter().flat_map(|bytes| bytes.chunks_exact(4));
        let values: Vec<f32> = values
            .map(|value| f32::from_ne_bytes([value[0], value[1], value[2], value[3]]))
            .collect();
        self.sums += 1;
        let sum = host::add_up(self.device, values, &devices, self.sums);
        let mut sum = sum.map_err(failure)?;
        if let ReduceOperation::Mean = operation {
            sum.iter_mut().for_each(|v| *v /= devices.len() as f32);
        }
        self.put(target, Bytes::from_elems(sum));
        Ok(())
    }

    fn send(
        &mut self,
        source: CopyDescriptor,
        _: ElemType,
        stream: StreamId,
        to: DeviceId,
    ) -> Result<(), ServerError> {
        let source = as_bytes(source.handle);
        let bytes = block_on(self.inner.read(vec![source], stream))?;
        bytes
            .into_iter()
            .for_each(|bytes| host::send(self.device, to, bytes));
        Ok(())
    }

    fn recv(
        &mut self,
        target: Handle,
        _: ElemType,
        stream: StreamId,
        from: DeviceId,
    ) -> Result<(), ServerError> {
        let bytes = host::receive(from, self.device).map_err(failure)?;
        self.inner
            .initialize_memory(target.memory.clone(), target.size(), stream);
        self.put(target.binding(), bytes);
        Ok(())
    }
}

impl StandInServer {
    /// Writes on the stream that those wait for who use the target.
    fn put(&mut self, target: Binding, bytes: Bytes) {
        let stream = target.stream;
        self.inner.write(vec![(as_bytes(target), bytes)], stream);
    }
}

fn as_bytes(binding: Binding) -> CopyDescriptor {
    let size = binding.size_in_used() as usize;
    CopyDescriptor::new(binding, [size].into(), [1].into(), 1)
}

fn failure(reason: String) -> ServerError {
    ServerError::Generic {
        reason,
        backtrace: BackTrace::capture(),
    }
}
