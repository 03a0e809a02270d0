# Part of every probe script: constant text, all values come as positional parameters. POSIX sh.
#
# enter DIRECTORY TYPE SOURCES: goes into the directory if it is the root of a mount of this type from one of these
# sources (separated by blanks), else prints `refused REASON` and exits 10. Everything after it works relative to the
# directory that was entered, so nothing that is mounted or unmounted meanwhile can redirect a write.
enter() {
    here=$(stat -L -c %d -- "$1" 2>&1) || { echo "refused $here"; exit 10; }
    cd -P -- "$1" 2>/dev/null || { echo "refused no directory $1"; exit 10; }
    here=$(stat -c %d . 2>&1) || { echo "refused $here"; exit 10; }
    there="not a mount point"
    while read -r _ _ device root point _ rest; do
        [ "$point" = "$PWD" ] || continue
        # After optional fields and a hyphen come type, source and options of the super block (proc_pid_mountinfo(5)).
        rest=${rest#*- }
        kind=${rest%% *} source=${rest#* }
        source=${source%% *}
        there="$kind from $source"
        [ "$root" = / ] || there="$there, its directory $root"
        [ "$root" = / ] && [ "$kind" = "$2" ] || continue
        case " $3 " in *" $source "*) ;; *) continue ;; esac
        major=${device%:*} minor=${device#*:}
        # st_dev as stat prints it (new_encode_dev in the kernel).
        [ "$(((minor & 255) | (major << 8) | ((minor & ~255) << 12)))" = "$here" ] || continue
        echo "entered $PWD"
        return
    done </proc/self/mountinfo
    echo "refused $there"
    exit 10
}

# Prints a word and what a command wrote to its standard error, on one line.
say() { echo "$1" "$(printf %s "$2" | tr '\n' ' ')"; }

# trylock KIND FILE: asks for the lock that another host holds, in the same way in which that holds it (on some file
# systems flock and fcntl locks know nothing of each other). QEMU's own tool asks for the byte-range locks that a guest's
# QEMU would ask for; flock(1) stands in where it is missing. Prints `FILE TOOL STATUS MESSAGE`; returns the status.
trylock() {
    # Another host may have put a link in its place, or a pipe, or a device that begins to count once it is opened.
    if [ ! -f "$2" ] || [ -L "$2" ]; then
        say "$2 test 1" "$2: no regular file"
        return 1
    fi
    if [ "$1" = fcntl ] && command -v qemu-io >/dev/null; then
        tool=qemu-io
        why=$(qemu-io -r -f raw -c quit "$2" 2>&1)
    else
        tool=flock
        mode=
        [ "$1" = flock ] || mode=--fcntl
        # The shell opens it for reading: flock(1) itself would make a file that it does not find.
        why=$({ flock $mode -n -s -E 75 3 3<"$2"; } 2>&1)
    fi
    status=$?
    say "$2 $tool $status" "$why"
    return $status
}
