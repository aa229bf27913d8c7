//! What the sanitizer cannot see: threads that the standard library's locks let wait for each
//! other. They do it by one system call, which is told to the sanitizer here.

use std::arch::asm;

const FUTEX: i64 = 202;
const WAIT: i64 = 0;
const WAKE: i64 = 1;
const WAIT_BITSET: i64 = 9;
const WAKE_BITSET: i64 = 10;
const OPERATION: i64 = 127;

unsafe extern "C" {
    fn __tsan_acquire(address: *const u8);
    fn __tsan_release(address: *const u8);
    fn __errno_location() -> *mut i32;
}

/// The C library's function of that name.
///
/// # Safety
/// As of the system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: i64,
    first: i64,
    second: i64,
    third: i64,
    fourth: i64,
    fifth: i64,
    sixth: i64,
) -> i64 {
    let operation = (number == FUTEX).then_some(second & OPERATION);
    let address = first as *const u8;
    if matches!(operation, Some(WAKE | WAKE_BITSET)) {
        // SAFETY: the address is only a name to it.
        unsafe { __tsan_release(address) };
    }
    let mut result = number;
    // SAFETY: the kernel's convention on this processor; the caller vouches for the call itself.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") sixth,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if matches!(operation, Some(WAIT | WAIT_BITSET)) {
        // SAFETY: as above.
        unsafe { __tsan_acquire(address) };
    }
    match result {
        -4095..=-1 => {
            // SAFETY: this thread's own.
            unsafe { *__errno_location() = -result as i32 };
            -1
        }
        result => result,
    }
}
