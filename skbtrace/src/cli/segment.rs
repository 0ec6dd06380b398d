//! Which part of the network to look at: flags that mean the same wherever this host is looked at and nothing is traced.

/// Flags of every command that looks at one segment, or at all. `iface` has no help of its own: what there is to look at
/// is each command's to say, by `mut_arg`.
#[derive(Debug, clap::Args)]
pub(super) struct SegmentArgs {
    #[arg(short, long, value_name = "NAME")]
    pub(super) iface: Option<String>,
    /// Look for the interface in this netns only: a name, `init`, pid:N, or a path
    #[arg(long, value_name = "NETNS", requires = "iface")]
    pub(super) netns: Option<String>,
}
