# Boots systemd as process 1 of namespaces of its own, all but the network, with the machine's programs (/usr, read-only) and
# a root of its own. Nothing of the machine's /etc, /run and /var is seen or written, and no kernel setting outside the
# network namespace this is started in.
#
#   sh container.sh hold ROOT CGROUP      ends when its standard input does, and systemd with it
#
# ROOT is a directory with what systemd is to find in /etc, CGROUP one to be made where control groups of version 2 are. The
# process that is systemd is in ROOT/init.pid once the root is in place.
set -eu
script=$0
# The same shell all along: that of busybox prefers programs of its own.
export shell="${shell:-$(readlink "/proc/$$/exe")}"

# Holds a boot: whoever wants it has the other end of the standard input, and takes it away even by dying.
hold() { # ROOT CGROUP
	# Whoever is interrupted lets go; what it held is put away here.
	trap '' INT HUP TERM
	mkdir "$2"
	# unshare itself complains when its child is killed.
	unshare --mount --uts --ipc --pid --fork --kill-child "$shell" "$script" enter "$1" "$2" < /dev/null 3>&2 2> /dev/null &
	namespaces=$!
	while read -r _; do :; done
	# Its end is the end of all processes inside. Once is not enough: unshare may not have forked yet.
	while kill -0 $namespaces 2> /dev/null; do
		init=$(cat "/proc/$namespaces/task/$namespaces/children" 2> /dev/null) || true
		[ -z "$init" ] || kill -KILL $init 2> /dev/null || true
		sleep 0.1
	done
	wait $namespaces || true
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		if find "$2" -depth -type d -exec rmdir {} +; then break; fi
		sleep 0.1
	done
}

# Process 1 of the new namespaces goes into the control group, which then is the root of what it sees.
enter() { # ROOT CGROUP
	exec 2>&3 3>&-
	read -r pid _ < /proc/self/stat
	echo 0 > "$2/cgroup.procs"
	exec unshare --cgroup "$shell" "$script" boot "$1" "$pid"
}

is() { mount --bind "$2" "$2" && mount -o "remount,bind,$1" "$2"; } # ro or rw, PLACE

# Makes the root, and becomes systemd. What is not of the network namespace is read-only in /proc/sys and /sys, which also
# tells networkd that there is no udev. Without these capabilities nothing could load modules, set the clock or make devices
# even if it tried.
boot() { # ROOT PID
	mount --bind "$1" "$1"
	cd "$1"
	mount --rbind /usr usr
	mount -o remount,bind,ro usr
	mount -t proc -o nosuid,nodev,noexec proc proc
	is ro proc/sys
	is rw proc/sys/net
	[ ! -e proc/sysrq-trigger ] || is ro proc/sysrq-trigger
	mount -t sysfs sysfs sys
	mount -o remount,bind,ro sys
	# The interfaces of this network namespace; netplan asks for their events again.
	is rw sys/devices/virtual/net
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	for of in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs $of; done
	mkdir dev/pts dev/shm run/old
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
	mount -t tmpfs tmpfs dev/shm
	for device in null zero full random urandom tty; do
		: > dev/$device
		mount --bind /dev/$device dev/$device
	done
	ln -s /proc/self/fd dev/fd
	ln -s pts/ptmx dev/ptmx
	# The first root of a kernel cannot be put away, only covered.
	if pivot_root . run/old 2> /dev/null; then
		umount -l run/old
	else
		mount --move . /
	fi
	rmdir run/old
	echo "$2" > init.pid
	exec chroot . setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-mknod,-syslog,-mac_admin,-mac_override \
		env -i container=dsrlb PATH=/usr/sbin:/usr/bin \
		/usr/lib/systemd/systemd --unit=multi-user.target --show-status=no
}

"$@"
