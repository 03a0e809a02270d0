# stor-place PATH PARTIAL: shows what lies where the data of a LUN is, or is to be. Never writes. POSIX sh; constant text, both
# values are positional parameters.
path=$1 partial=$2
if [ -b "$path" ]; then
    printf 'device b:%d:%d\n' "0x$(stat -L --format=%t -- "$path")" "0x$(stat -L --format=%T -- "$path")"
    # What the kernel made of the device (partitions, volumes), and what it is made of itself.
    printf 'below %s\n' "$(lsblk --json --bytes --output PATH,MAJ:MIN,TYPE,SIZE,RO,MOUNTPOINTS -- "$path" | tr -d '\n')"
    printf 'above %s\n' "$(lsblk --json --bytes --inverse --output PATH,MAJ:MIN,TYPE,SIZE,RO,MOUNTPOINTS -- "$path" | tr -d '\n')"
    printf 'signatures %s\n' "$(wipefs --json -- "$path" | tr -d '\n')"
    udevadm info --query=property --name="$path" 2>/dev/null |
        sed -n -E 's/^((DM_UUID|ID_PART_ENTRY_UUID|ID_WWN_WITH_EXTENSION|ID_WWN|ID_SERIAL)=.+)$/id \1/p'
    # Whoever mounts a device or builds on it has it for itself.
    perl -MFcntl -e 'exit(sysopen(my $device, $ARGV[0], O_RDONLY | O_EXCL) ? 0 : $!{EBUSY} ? 3 : 1)' "$path" 2>/dev/null
    [ $? -ne 3 ] || echo claimed
    exit 0
fi
stat --format='file %s f:%d:%i %F' -- "$path" 2>/dev/null || echo absent
[ ! -e "$partial" ] || echo unfinished
command -v losetup > /dev/null && losetup --noheadings --output NAME --associated "$path" 2>/dev/null | sed 's/^/looped /'
true
