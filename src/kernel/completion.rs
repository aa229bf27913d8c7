use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use burn::tensor::backend::{Backend, DeviceOps, ExecutionError};
use burn::tensor::{Tensor, TensorData, try_read_sync};

use super::batches::is_on_host;
use crate::error::DeviceError;

/// Whether a backend computes behind the thread that calls it.
pub fn is_asynchronous<B: Backend>() -> bool {
    !is_on_host::<B>()
}

/// What failed on the devices that are lost, by backend and device.
static LOST: Mutex<BTreeMap<(TypeId, u16, u16), DeviceError>> = Mutex::new(BTreeMap::new());

fn key<B: Backend>(device: &B::Device) -> (TypeId, u16, u16) {
    let id = device.id();
    (TypeId::of::<B::Device>(), id.type_id, id.index_id)
}

/// Checks that a device is not lost. What is given to one that is piles up there.
///
/// # Errors
/// [`DeviceError::Lost`], as when it was.
pub fn check_usable<B: Backend>(device: &B::Device) -> Result<(), DeviceError> {
    if !is_asynchronous::<B>() {
        return Ok(());
    }
    let lost = LOST.lock().unwrap_or_else(|e| e.into_inner());
    lost.get(&key::<B>(device)).cloned().map_or(Ok(()), Err)
}

/// Waits for what this thread has given the device, and says whether all of it was done.
///
/// What finds no memory on a GPU is left out there, and whoever reads the result finds what lay
/// in its place: only waiting tells. Nothing waits on the CPU, where a tensor that is there was
/// computed.
///
/// # Errors
/// [`DeviceError`] with what was being done, and what would take less memory.
pub fn finish<B: Backend>(
    device: &B::Device,
    action: &'static str,
    advice: impl FnOnce() -> String,
) -> Result<(), DeviceError> {
    if !is_asynchronous::<B>() {
        return Ok(());
    }
    wait_for::<B, _>(device, action, advice, || B::sync(device))
}

/// What `wait` gives. Burn's clients panic where the thread that serves the device did.
fn wait_for<B: Backend, R>(
    device: &B::Device,
    action: &'static str,
    advice: impl FnOnce() -> String,
    wait: impl FnOnce() -> Result<R, ExecutionError>,
) -> Result<R, DeviceError> {
    check_usable::<B>(device)?;
    match catch_unwind(AssertUnwindSafe(wait)) {
        Ok(waited) => waited.map_err(|error| DeviceError::Failed {
            action,
            reason: in_one_line(&error.to_string()),
            advice: advice(),
        }),
        Err(_) => Err(lose::<B>(device, action, advice)),
    }
}

/// Notes that a device is lost.
fn lose<B: Backend>(
    device: &B::Device,
    action: &'static str,
    advice: impl FnOnce() -> String,
) -> DeviceError {
    let advice = advice();
    let lost = DeviceError::Lost { action, advice };
    let mut all = LOST.lock().unwrap_or_else(|e| e.into_inner());
    all.insert(key::<B>(device), lost.clone());
    lost
}

/// How much of a driver's report is told; the rest says it again, of what needed that result.
const REPORT: usize = 400;

/// The beginning of a driver's report, without its line breaks.
fn in_one_line(report: &str) -> String {
    let lines = report.lines().map(|line| line.trim().trim_end_matches(':'));
    let told = lines.filter(|line| !line.is_empty() && *line != "Caused by");
    let told = told.collect::<Vec<_>>().join(": ");
    match told.char_indices().nth(REPORT) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}

/// A tensor's values on their way from the device.
pub struct Reading<B: Backend> {
    device: B::Device,
    values: Values,
}

type Data = Result<TensorData, ExecutionError>;

enum Values {
    There(Data),
    /// The thread that serves the device panicked.
    Lost,
    Travelling(Pin<Box<dyn Future<Output = Data> + Send>>),
}

impl<B: Backend> Reading<B> {
    /// Begins to read: what the device is given after this, it computes while they travel.
    pub fn begin<const D: usize>(tensor: Tensor<B, D>) -> Self {
        let device = tensor.device();
        let mut reading = Box::pin(tensor.into_data_async());
        // Polled for the first time, Burn hands the copy over to the device.
        let mut context = Context::from_waker(Waker::noop());
        let first = catch_unwind(AssertUnwindSafe(|| reading.as_mut().poll(&mut context)));
        let values = match first {
            Ok(Poll::Ready(data)) => Values::There(data),
            Ok(Poll::Pending) => Values::Travelling(reading),
            Err(_) => Values::Lost,
        };
        Self { device, values }
    }

    /// Waits for them.
    ///
    /// # Errors
    /// As [`finish`], which says whether they are right.
    pub fn end(
        self,
        action: &'static str,
        advice: impl FnOnce() -> String,
    ) -> Result<TensorData, DeviceError> {
        match self.values {
            Values::There(data) => wait_for::<B, _>(&self.device, action, advice, || data),
            Values::Lost => Err(lose::<B>(&self.device, action, advice)),
            Values::Travelling(reading) => wait_for::<B, _>(&self.device, action, advice, || {
                try_read_sync(reading).unwrap_or_else(|| {
                    Err(ExecutionError::WithContext {
                        reason: "this platform cannot wait for a device".to_owned(),
                    })
                })
            }),
        }
    }
}

impl<B: Backend> fmt::Debug for Reading<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("device", &self.device)
            .field("is_there", &matches!(self.values, Values::There(_)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    fn advice() -> String {
        "less takes less".to_owned()
    }

    #[test]
    fn values_arrive_whatever_the_device_is_given_after() {
        let tensor = Tensor::<TestBackend, 2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device());
        let reading = Reading::begin(tensor.clone() * 2.0);
        let other = Reading::begin(tensor.clone().matmul(tensor));
        let values = |reading: Reading<TestBackend>| -> Vec<f32> {
            reading.end("reading", advice).unwrap().iter().collect()
        };
        assert_eq!(values(other), [7.0, 10.0, 15.0, 22.0]);
        assert_eq!(values(reading), [2.0, 4.0, 6.0, 8.0]);
        finish::<TestBackend>(&device(), "reading", advice).unwrap();
    }

    #[test]
    fn a_failure_is_told_in_one_line_with_what_takes_less() {
        let wait = || -> Data {
            Err(ExecutionError::WithContext {
                reason: "An error happened\nCaused by:\n  The server is ill:\n  [no memory]\n"
                    .to_owned(),
            })
        };
        let error = wait_for::<TestBackend, _>(&device(), "encoding", advice, wait).unwrap_err();
        let told = error.to_string();
        assert!(
            told.starts_with("the device failed at encoding: "),
            "{told}"
        );
        assert!(
            told.contains("An error happened: The server is ill: [no memory]"),
            "{told}"
        );
        assert!(
            told.ends_with("if it ran out of memory, less takes less"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1);
        assert_eq!(in_one_line(&"é".repeat(500)).chars().count(), 401);
    }
}
