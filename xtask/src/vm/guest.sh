# Makes the guest a machine that networking tools and BPF feel at home in, runs the command, and tells its exit status.
# What it prints goes to the console; the command's own output goes through two pipes to files on the host.
# Busybox alone works here until the command begins: the host's programs are what is being tested.
cd /run/skbtrace-vm || exit
bb=/run/skbtrace-vm/busybox
mkdir bin && "$bb" --install -s bin
PATH=/run/skbtrace-vm/bin
mkdir -p /run/netns /run/lock /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
# devtmpfs has devices only.
ln -sf /proc/self/fd /dev/fd
for i in 0:stdin 1:stdout 2:stderr; do ln -sf "/proc/self/fd/${i%%:*}" "/dev/${i#*:}"; done
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname skbtrace-vm
# From here on only what is wrong: a slow console slows down what is being timed.
dmesg -n 5
ip link set lo up
ulimit -n 4096

mkfifo stdout stderr
cat < stdout > ctl/stdout & out=$!
cat < stderr > ctl/stderr & err=$!
echo "skbtrace-vm: the command begins"
# Whole at once, so that the host never sees half a line.
uname -r > ctl/began.new && mv ctl/began.new ctl/began
# By the host's shell: busybox would take its own programs for the host's. In the foreground: what a shell starts in the
# background ignores SIGINT for ever.
setsid /bin/sh ctl/cmd < /dev/null > stdout 2> stderr
status=$?
# What the command left behind holds the pipes open.
for dir in /proc/[0-9]*; do
    pid=${dir#/proc/} line=
    case $pid in 1 | "$out" | "$err") continue ;; esac
    # A kernel thread has no command line.
    read -r line < "$dir/cmdline"
    [ -n "$line" ] && kill -9 "$pid"
done 2> /dev/null
wait "$out" "$err"
echo "$status" > ctl/status.new && mv ctl/status.new ctl/status
# The host sees the status and ends the machine.
sleep 600
