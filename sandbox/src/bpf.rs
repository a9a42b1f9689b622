//! The seccomp filter as a program for the kernel's classic BPF machine.
//!
//! Written by hand because one filter has to give several answers (allow, two error numbers, kill)
//! and one constant, the program's own process id, is known only in the child. Layout: a check of
//! the architecture, then for each system call one comparison and its body, which always returns;
//! what matches none is answered with ENOSYS, so that a libc which knows newer calls falls back.

/// Offsets in `struct seccomp_data`: number, architecture, low word of the arguments (little endian).
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
#[cfg(target_arch = "x86_64")]
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

#[cfg(target_arch = "x86_64")]
const OUR_ARCH: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const OUR_ARCH: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OUR_ARCH: Option<u32> = None;
/// System calls of the x32 ABI carry this bit.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// A test of one argument.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Test {
    /// The low 32 bits, masked, equal this: for arguments that the kernel takes as `int`.
    Low { arg: u32, mask: u32, value: u32 },
    /// All 64 bits equal this: for pointers.
    Whole { arg: u32, value: u64 },
    /// The low 32 bits equal the process id of the program.
    OwnPid { arg: u32 },
}

/// What happens to one system call.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// It goes through.
    Allow,
    /// It fails with this error number.
    Refuse(i32),
    /// It goes through if all tests of one of the alternatives hold, and else fails.
    When(Vec<Vec<Test>>, i32),
}

/// A finished filter but for the process id.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) code: Vec<libc::sock_filter>,
    /// Instructions whose constant is the process id.
    pub(crate) pid_at: Vec<usize>,
}

impl Filter {
    /// `None` on a processor for which there is no table.
    pub(crate) fn new(rules: &[(libc::c_long, Rule)]) -> Option<Self> {
        let mut code = vec![
            instruction(LOAD, ARCH, 0, 0),
            instruction(EQUAL, OUR_ARCH?, 1, 0),
            instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
            instruction(LOAD, NR, 0, 0),
        ];
        #[cfg(target_arch = "x86_64")]
        code.extend([
            instruction(AT_LEAST, X32, 0, 1),
            instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        ]);
        let mut pid_at = Vec::new();
        for (number, rule) in rules {
            let body = rule.body();
            // Bodies are far shorter than the 255 instructions that a jump can skip.
            code.push(instruction(EQUAL, *number as u32, 0, u8::try_from(body.len()).ok()?));
            for (instruction, is_pid) in body {
                if is_pid {
                    pid_at.push(code.len());
                }
                code.push(instruction);
            }
        }
        code.push(instruction(RETURN, errno(libc::ENOSYS), 0, 0));
        (code.len() <= libc::BPF_MAXINSNS as usize).then_some(Self { code, pid_at })
    }
}

impl Rule {
    /// Instructions, each with whether its constant is the process id. All paths return.
    fn body(&self) -> Vec<(libc::sock_filter, bool)> {
        let answer = |value| (instruction(RETURN, value, 0, 0), false);
        match self {
            Self::Allow => vec![answer(libc::SECCOMP_RET_ALLOW)],
            Self::Refuse(number) => vec![answer(errno(*number))],
            Self::When(alternatives, number) => {
                let mut body = Vec::new();
                for tests in alternatives {
                    let blocks: Vec<_> = tests.iter().map(Test::block).collect();
                    // A failing test skips what is left of its alternative, RETURN included.
                    let mut left = blocks.iter().map(Vec::len).sum::<usize>() + 1;
                    for block in blocks {
                        for (mut instruction, is_pid) in block {
                            left -= 1;
                            if instruction.code == EQUAL {
                                instruction.jf = left as u8;
                            }
                            body.push((instruction, is_pid));
                        }
                    }
                    body.push(answer(libc::SECCOMP_RET_ALLOW));
                }
                body.push(answer(errno(*number)));
                body
            }
        }
    }
}

impl Test {
    fn block(&self) -> Vec<(libc::sock_filter, bool)> {
        let load = |arg: u32, word: u32| (instruction(LOAD, ARGS + 8 * arg + 4 * word, 0, 0), false);
        let equal = |value| (instruction(EQUAL, value, 0, 0), false);
        match *self {
            Self::Low { arg, mask, value } => {
                vec![load(arg, 0), (instruction(AND, mask, 0, 0), false), equal(value)]
            }
            Self::Whole { arg, value } => {
                vec![
                    load(arg, 0),
                    equal(value as u32),
                    load(arg, 1),
                    equal((value >> 32) as u32),
                ]
            }
            Self::OwnPid { arg } => vec![load(arg, 0), (instruction(EQUAL, 0, 0, 0), true)],
        }
    }
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | (number as u32 & libc::SECCOMP_RET_DATA)
}

/// Jumps count instructions to skip: `jt` if the comparison holds, `jf` if not.
fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: u32 = 4242;

    /// A machine for the instructions used here, written after the kernel's description of them.
    fn decide(filter: &Filter, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let i = &filter.code[at];
            let k = if filter.pid_at.contains(&at) { PID } else { i.k };
            at += 1;
            match u32::from(i.code) {
                0x20 => {
                    a = match k {
                        0 => nr,
                        4 => arch,
                        _ => (args[(k as usize - 16) / 8] >> (8 * (k % 8))) as u32,
                    }
                }
                0x54 => a &= k,
                0x15 => at += usize::from(if a == k { i.jt } else { i.jf }),
                0x35 => at += usize::from(if a >= k { i.jt } else { i.jf }),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn each_rule_gives_its_answer_and_strangers_are_refused() {
        let low = |arg, mask, value| Test::Low { arg, mask, value };
        let filter = Filter::new(&[
            (1, Rule::Allow),
            (2, Rule::Refuse(libc::EPERM)),
            (
                3,
                Rule::When(
                    vec![vec![low(1, 0xf0, 0x10), Test::OwnPid { arg: 0 }], vec![low(2, !0, 7)]],
                    libc::EACCES,
                ),
            ),
            (
                4,
                Rule::When(
                    vec![vec![Test::Whole {
                        arg: 5,
                        value: 0x1_0000_0002,
                    }]],
                    libc::EPERM,
                ),
            ),
        ])
        .unwrap();
        let arch = OUR_ARCH.unwrap();
        let ask = |nr, args| decide(&filter, arch, nr, args);
        let (allow, eperm, eacces) = (0x7fff_0000, 0x0005_0001, 0x0005_000d);
        assert_eq!(ask(1, [0; 6]), allow);
        assert_eq!(ask(2, [0; 6]), eperm);
        assert_eq!(ask(3, [PID.into(), 0x1f, 0, 0, 0, 0]), allow);
        assert_eq!(ask(3, [PID.into(), 0x2f, 0, 0, 0, 0]), eacces);
        assert_eq!(ask(3, [1, 0x1f, 0, 0, 0, 0]), eacces);
        assert_eq!(ask(3, [1, 0x1f, 7, 0, 0, 0]), allow);
        assert_eq!(ask(4, [0, 0, 0, 0, 0, 0x1_0000_0002]), allow);
        assert_eq!(ask(4, [0, 0, 0, 0, 0, 2]), eperm);
        assert_eq!(ask(4, [0, 0, 0, 0, 0, 0x2_0000_0002]), eperm);
        assert_eq!(ask(5, [0; 6]), 0x0005_0026, "ENOSYS");
        assert_eq!(
            decide(&filter, 0x4000_0003, 1, [0; 6]),
            0x8000_0000,
            "a 32-bit call kills"
        );
        #[cfg(target_arch = "x86_64")]
        assert_eq!(ask(1 | X32, [0; 6]), 0x8000_0000, "an x32 call kills");
    }
}
