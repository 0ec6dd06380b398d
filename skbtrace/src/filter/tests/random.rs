//! Expressions and packets at random, from a seed.

use crate::filter::cbpf::{self, Insn};

/// splitmix64: any generator would do that gives the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// An expression, of so many levels at most.
    pub fn expression(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.primitive();
        }
        match self.below(6) {
            0 | 1 => {
                let operator = self.of(&["and", "or", "&&", "||"]);
                format!("({}) {operator} ({})", self.expression(depth - 1), self.expression(depth - 1))
            }
            2 => format!("not ({})", self.expression(depth - 1)),
            3 => format!("{} and {}", self.primitive(), self.expression(depth - 1)),
            _ => self.primitive(),
        }
    }

    fn primitive(&mut self) -> String {
        match self.below(14) {
            0 => self.of(&["ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "sctp", "rarp", "igmp"]).to_owned(),
            1 => self.of(&["stp", "ether broadcast", "ether multicast", "ip multicast", "ip6 multicast"]).to_owned(),
            2 => format!("{}host {}", self.direction(), self.host()),
            3 => {
                let net = ["net 78.78.0.0/24", "net 10.5.0.0 mask 255.255.0.0", "net fd78::/16", "net 224.0.0.0/4"];
                format!("{}{}", self.direction(), self.of(&net))
            }
            4 | 5 => format!("{}{}port {}", self.of(&["", "tcp ", "udp "]), self.direction(), self.port()),
            6 => {
                format!("{}portrange {}-{}", self.of(&["", "tcp ", "udp "]), self.below(100), 100 + self.below(60_000))
            }
            7 => format!("{} {}", self.of(&["greater", "less"]), self.below(1600)),
            8 => format!("ip{} proto {}", self.of(&["", "6"]), self.of(&[1, 6, 17, 44, 47, 50, 58, 132])),
            9 => {
                let of_link =
                    ["vlan", "vlan 5", "mpls", "mpls 100", "ether proto 0x86dd", "ether src 2:0:0:0:0:5", "pppoes"];
                self.of(&of_link).to_owned()
            }
            _ => {
                let relation = self.of(&["=", "!=", "<", ">", "<=", ">="]);
                format!("{} {relation} {}", self.arithmetic(2), self.arithmetic(1))
            }
        }
    }

    fn direction(&mut self) -> &'static str {
        self.of(&["", "", "src ", "dst ", "src or dst ", "src and dst "])
    }

    fn host(&mut self) -> &'static str {
        self.of(&["78.78.0.10", "78.78.0.11", "78.78.0.12", "10.5.0.1", "10.5.0.2", "fd78::10", "fd78::11", "ff02::2"])
    }

    fn port(&mut self) -> u64 {
        let other = self.below(65_536);
        self.of(&[8000, 8000, 53, 99, 81, 22, 1234, other])
    }

    fn arithmetic(&mut self, depth: u32) -> String {
        if depth == 0 || self.one_in(3) {
            let other = self.next() & 0xffff_ffff;
            let number = self.of(&[0, 1, 2, 4, 6, 14, 0x0f, 0xff, 1500, 0x47455420, 0xffff_ffff, 0x8000_0000, other]);
            return if self.one_in(8) { "len".to_owned() } else { number.to_string() };
        }
        match self.below(8) {
            0..=4 => {
                let base = self.of(&["ether", "ip", "ip", "tcp", "tcp", "udp", "icmp", "ip6", "arp", "link"]);
                let size = self.of(&["", ":1", ":2", ":4"]);
                let index = match self.below(5) {
                    0 => self.arithmetic(depth - 1),
                    1 => format!("(tcp[12] & 0xf0) >> {}", self.below(6)),
                    2 => self.below(3000).to_string(),
                    _ => self.below(40).to_string(),
                };
                format!("{base}[{index}{size}]")
            }
            5 => format!("-{}", self.arithmetic(depth - 1)),
            _ => {
                let operator = self.of(&["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]);
                format!("({} {operator} {})", self.arithmetic(depth - 1), self.arithmetic(depth - 1))
            }
        }
    }

    /// One of the packets, often with some bytes changed, or cut off somewhere.
    pub fn packet(&mut self, packets: &[&[u8]]) -> Vec<u8> {
        let mut packet = self.of(packets).to_vec();
        if self.one_in(3) {
            for _ in 0..=self.below(4) {
                let at = self.below(packet.len().min(80) as u64) as usize;
                packet[at] = self.next() as u8;
            }
        }
        if self.one_in(4) {
            packet.truncate(self.below(packet.len() as u64 + 1) as usize);
        }
        if self.one_in(16) {
            packet.extend((0..self.below(4000)).map(|n| n as u8));
        }
        packet
    }
}

/// Programs, not of any expression: of every instruction there is.
impl Random {
    pub fn program(&mut self) -> Vec<Insn> {
        let length = 2 + self.below(14) as usize;
        // Memory is written first: what libpcap's has before is nobody's business.
        let mut program = vec![Insn { code: cbpf::ST, jt: 0, jf: 0, k: 3 }];
        program.extend((0..length - 1).map(|at| self.insn(length - at - 2)));
        let (accept, of_accumulator) = (self.below(3), self.one_in(2));
        let code = if of_accumulator { cbpf::RET | cbpf::A } else { cbpf::RET };
        program.push(Insn { code, jt: 0, jf: 0, k: accept as u32 });
        program
    }

    fn insn(&mut self, ahead: usize) -> Insn {
        use cbpf::*;
        let number = self.number();
        let place = self.below(60) as u32;
        let near = if self.one_in(10) { number } else { place };
        let insn = |code, k| Insn { code, jt: 0, jf: 0, k };
        let size = self.of(&[W, H, B]);
        let (operation, operand) = (self.of(&[ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR]), self.of(&[0, X]));
        match self.below(12) {
            0 => insn(LD | ABS | size, near),
            1 => insn(LD | IND | size, near),
            2 => insn(LDX | MSH | B, near),
            3 => insn(self.of(&[LD, LDX]) | IMM, near),
            4 => insn(self.of(&[LD, LDX]) | LEN, 0),
            5 => insn(self.of(&[ST, STX, LD | MEM, LDX | MEM]), 3),
            6 => insn(MISC | self.of(&[0, TXA]), 0),
            7 | 8 if operand == 0 && matches!(operation, DIV | MOD) => insn(ALU | operation, near.max(1)),
            7 | 8 if operand == 0 && matches!(operation, LSH | RSH) => insn(ALU | operation, near % 32),
            7 | 8 if operation == NEG => insn(ALU | NEG, 0),
            7 | 8 => insn(ALU | operation | operand, near),
            9 => insn(JMP | JA, self.below(ahead as u64 + 1) as u32),
            _ => Insn {
                code: JMP | self.of(&[JEQ, JGT, JGE, JSET]) | operand,
                jt: self.below(ahead as u64 + 1) as u8,
                jf: self.below(ahead as u64 + 1) as u8,
                k: near,
            },
        }
    }

    fn number(&mut self) -> u32 {
        let other = self.next() as u32;
        self.of(&[0, 1, 31, 32, 33, 2047, 2048, 2049, 0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff, other])
    }
}
