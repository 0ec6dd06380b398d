#!/bin/busybox sh
# The first program of the machine. It turns the host's root, shared read-only, into a root that can be written to,
# and starts guest.sh there. Whatever fails before that must end the machine, loudly: the host then boots again.
/bin/busybox --install -s /bin
die() { echo "skbtrace-vm: $*"; sync; poweroff -f; }
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev || die "no proc, sys or dev"
while read -r module; do insmod "/modules/$module" || die "module $module does not load"; done < /modules/order
share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$1" "$2" "$3" || die "the share $2 does not mount"; }
share ro,cache=loose host /host
mount -t tmpfs -o size=75% tmpfs /rw && mkdir /rw/upper /rw/work || die "no tmpfs"
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work overlay /new || die "no overlay"
mkdir -p /new/proc /new/sys /new/dev /new/run
mount -t tmpfs -o mode=755 tmpfs /new/run && mkdir -p /new/run/skbtrace-vm/ctl || die "no /run"
share cache=none ctl /new/run/skbtrace-vm/ctl
release=$(uname -r)
mkdir -p "/new/lib/modules/$release"
share ro,cache=loose modules "/new/lib/modules/$release"
if [ -e /share-out ]; then mkdir -p /new/out; share cache=none out /new/out; fi
cp /bin/busybox /guest.sh /new/run/skbtrace-vm/ || die "no room in /run"
for dir in proc sys dev; do mount --move "/$dir" "/new/$dir"; done
exec switch_root /new /run/skbtrace-vm/busybox sh /run/skbtrace-vm/guest.sh
