//! What NCCL does among CUDA's devices, done on the host for the stand-in's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::tensor::backend::DeviceId;
use burn_cubecl::cubecl::bytes::Bytes;

use crate::TWO;

/// How long a device waits for another.
const PATIENCE: Duration = Duration::from_secs(120);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits while something is missing, but not for ever.
fn wait<'a, T>(
    changed: &Condvar,
    state: MutexGuard<'a, T>,
    missing: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    let (state, _) = changed
        .wait_timeout_while(state, PATIENCE, missing)
        .unwrap_or_else(PoisonError::into_inner);
    state
}

/// What is on its way from one device to another.
type Letters = BTreeMap<(DeviceId, DeviceId), VecDeque<Bytes>>;

static LETTERS: Mutex<Letters> = Mutex::new(BTreeMap::new());
static SENT: Condvar = Condvar::new();

pub(crate) fn send(from: DeviceId, to: DeviceId, bytes: Bytes) {
    let mut letters = lock(&LETTERS);
    letters.entry((from, to)).or_default().push_back(bytes);
    SENT.notify_all();
}

pub(crate) fn receive(from: DeviceId, to: DeviceId) -> Result<Bytes, String> {
    let key = (from, to);
    let missing = |letters: &mut Letters| letters.get(&key).is_none_or(VecDeque::is_empty);
    let mut letters = wait(&SENT, lock(&LETTERS), missing);
    let letter = letters.get_mut(&key).and_then(VecDeque::pop_front);
    letter.ok_or_else(|| format!("nothing came from {from}"))
}

/// The sums that each device still adds up, after which it keeps what it has.
static LEFT: Mutex<BTreeMap<DeviceId, u64>> = Mutex::new(BTreeMap::new());

/// Does something while the devices add up so many sums and no more.
pub(crate) fn adding_up<T>(sums: u64, work: impl FnOnce() -> T) -> T {
    let ids = TWO.iter().map(burn::tensor::backend::DeviceOps::id);
    lock(&LEFT).extend(ids.map(|id| (id, sums)));
    let result = work();
    lock(&LEFT).clear();
    result
}

pub(crate) fn adds_up(device: DeviceId) -> bool {
    match lock(&LEFT).get_mut(&device) {
        Some(0) => false,
        Some(left) => {
            *left -= 1;
            true
        }
        None => true,
    }
}

/// What each device brought to a sum, and how many have it.
#[derive(Default)]
struct Sum {
    parts: BTreeMap<DeviceId, Vec<f32>>,
    taken: usize,
}

static SUMS: Mutex<BTreeMap<(Vec<DeviceId>, u64), Sum>> = Mutex::new(BTreeMap::new());
static BROUGHT: Condvar = Condvar::new();

/// The sum of what these devices bring to their so-manyth sum, in the order of the devices.
pub(crate) fn add_up(
    device: DeviceId,
    values: Vec<f32>,
    devices: &[DeviceId],
    sums: u64,
) -> Result<Vec<f32>, String> {
    let key = (devices.to_vec(), sums);
    let mut all = lock(&SUMS);
    let parts = &mut all.entry(key.clone()).or_default().parts;
    parts.insert(device, values);
    BROUGHT.notify_all();
    let missing = |all: &mut BTreeMap<_, Sum>| all[&key].parts.len() < devices.len();
    let mut all = wait(&BROUGHT, all, missing);
    let Some(sum) = all.get_mut(&key) else {
        return Err(format!("{key:?} was taken twice"));
    };
    if sum.parts.len() < devices.len() {
        return Err(format!("only {} came", sum.parts.len()));
    }
    let mut total = vec![0.0; sum.parts[&device].len()];
    for part in sum.parts.values() {
        if part.len() != total.len() {
            return Err(format!("{} beside {}", part.len(), total.len()));
        }
        total.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
    }
    sum.taken += 1;
    if sum.taken == devices.len() {
        all.remove(&key);
    }
    Ok(total)
}
