use std::any::{Any, TypeId};

#[cfg(feature = "autodiff")]
use burn::backend::NdArray;
use burn::backend::ndarray::{NdArrayTensor, SharedArray};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorMetadata, TensorPrimitive};

/// The float tensors of NdArray, whatever its element types.
type Plain = NdArrayTensor;

/// The float tensors of NdArray under autodiff.
#[cfg(feature = "autodiff")]
pub(super) type Tracked =
    <burn::backend::Autodiff<NdArray> as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive;

/// A backend that the CPU kernels serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Route {
    /// NdArray.
    Plain,
    /// NdArray under autodiff.
    #[cfg(feature = "autodiff")]
    Tracked,
}

/// The route of a tensor: none where it is not one of NdArray's in `f32`.
pub(in crate::kernel) fn route<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Option<Route> {
    let route = route_of::<B>()?;
    (tensor.dtype() == DType::F32).then_some(route)
}

/// The route of a backend's tensors, if they are in `f32`.
pub(in crate::kernel) fn route_of<B: Backend>() -> Option<Route> {
    let found = TypeId::of::<B::FloatTensorPrimitive>();
    if found == TypeId::of::<Plain>() {
        return Some(Route::Plain);
    }
    #[cfg(feature = "autodiff")]
    if found == TypeId::of::<Tracked>() {
        return Some(Route::Tracked);
    }
    None
}

/// A float tensor of a backend on [`Route::Plain`].
pub(in crate::kernel) fn plain<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Floats {
    Floats::new(cast(tensor.into_primitive().tensor()))
}

/// The tensor of a backend on [`Route::Plain`].
pub(in crate::kernel) fn from_plain<B: Backend, const D: usize>(floats: Floats) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(cast(floats.0)))
}

/// A float tensor of a backend on [`Route::Tracked`].
#[cfg(feature = "autodiff")]
pub(in crate::kernel) fn tracked<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tracked {
    cast(tensor.into_primitive().tensor())
}

/// The tensor of a backend on [`Route::Tracked`].
#[cfg(feature = "autodiff")]
pub(in crate::kernel) fn from_tracked<B: Backend, const D: usize>(tensor: Tracked) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(cast(tensor)))
}

/// The values of a float tensor on either route, without its graph.
pub(in crate::kernel) fn untracked<B: Backend, const D: usize>(
    tensor: Tensor<B, D>,
    route: Route,
) -> Floats {
    match route {
        Route::Plain => plain(tensor),
        #[cfg(feature = "autodiff")]
        Route::Tracked => Floats::new(tracked(tensor).primitive),
    }
}

/// A tensor on either route that no gradient flows into.
pub(in crate::kernel) fn constant<B: Backend, const D: usize>(
    floats: Floats,
    route: Route,
) -> Tensor<B, D> {
    match route {
        Route::Plain => from_plain(floats),
        #[cfg(feature = "autodiff")]
        Route::Tracked => from_tracked(Tracked::new(floats.0)),
    }
}

/// The whole numbers of an integer tensor on either route.
pub(in crate::kernel) fn indices<B: Backend>(
    tensor: Tensor<B, 1, burn::tensor::Int>,
) -> Vec<usize> {
    // Both routes share NdArray's integer tensors.
    match cast::<_, Plain>(tensor.into_primitive()) {
        Plain::I64(storage) => storage.view().iter().map(|&i| i as usize).collect(),
        Plain::I32(storage) => storage.view().iter().map(|&i| i as usize).collect(),
        other => unreachable!("token ids are 32 or 64 bits wide, not {:?}", other.dtype()),
    }
}

/// A value of a type that generic code knows by another name.
fn cast<A: 'static, T: 'static>(value: A) -> T {
    let mut slot = Some(value);
    let slot: &mut dyn Any = &mut slot;
    match slot.downcast_mut::<Option<T>>().and_then(Option::take) {
        Some(value) => value,
        None => unreachable!("the route was chosen by this very type"),
    }
}

/// The values of a float tensor, row after row.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Floats(NdArrayTensor);

impl Floats {
    pub(super) fn new(tensor: NdArrayTensor) -> Self {
        match tensor {
            NdArrayTensor::F32(storage) if storage.view().is_standard_layout() => {
                Self(NdArrayTensor::F32(storage))
            }
            NdArrayTensor::F32(storage) => {
                let rows = storage.view().as_standard_layout().into_owned();
                Self(rows.into_shared().into())
            }
            other => unreachable!("the route is that of f32, not of {:?}", other.dtype()),
        }
    }

    /// A tensor of these values.
    pub(super) fn from_vec(values: Vec<f32>, shape: &[usize]) -> Self {
        let found = values.len();
        match SharedArray::from_shape_vec(shape.to_vec(), values) {
            Ok(array) => Self(array.into()),
            Err(_) => unreachable!("{found} values for a tensor of shape {shape:?}"),
        }
    }

    pub(super) fn into_primitive(self) -> NdArrayTensor {
        self.0
    }

    pub(super) fn values(&self) -> &[f32] {
        match &self.0 {
            NdArrayTensor::F32(storage) => storage.view().to_slice().unwrap_or_default(),
            _ => &[],
        }
    }

    /// Changes the values: in place where no one else holds them, else in a copy.
    pub(super) fn map(self, change: impl FnOnce(&mut [f32])) -> Self {
        match self.0 {
            NdArrayTensor::F32(storage) => {
                let mut array = storage.into_shared();
                if let Some(values) = array.as_slice_mut() {
                    change(values);
                }
                Self(array.into())
            }
            other => Self(other),
        }
    }

    pub(super) fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }

    pub(super) fn len(&self) -> usize {
        self.values().len()
    }

    /// Whether both are the same memory: then they hold the same values, as long as both
    /// live.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.values(), other.values()) && self.0.shape() == other.0.shape()
    }
}
