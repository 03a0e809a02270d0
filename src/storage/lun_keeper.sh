# keeper END [FILE NUMBER IQN PATH]...: shows on a server what is behind LUNs: the serial number that tgtd or the kernel shows, the size, and
# the digests of the first and last END bytes. Never writes. POSIX sh; constant text, all values are positional parameters.
end=$1
shift
shown=$(tgtadm --lld iscsi --op show --mode target 2>/dev/null)
while [ $# -ge 4 ]; do
    file=$1 number=$2 iqn=$3 path=$4
    shift 4
    echo "lun $file"
    serial=$(printf '%s\n' "$shown" | awk -v iqn="$iqn" -v number="$number" '
        /^Target /{here = ($3 == iqn)} /^        LUN: /{lun = $2}
        here && lun == number && /SCSI SN:/{print $3}')
    for shows in /sys/kernel/config/target/iscsi/"$iqn"/tpgt_1/lun/lun_"$number"/*/wwn/vpd_unit_serial; do
        [ -n "$serial" ] || [ ! -r "$shows" ] || serial=$(sed 's/.*: *//' "$shows")
    done
    [ -n "$serial" ] || { echo "error the target has no LUN $number: No such file or directory"; continue; }
    echo "serial $serial"
    [ -e "$path" ] || { echo "error $path: No such file or directory"; continue; }
    # The kernel's target writes to a device past the cache, which may hold older blocks.
    if [ -b "$path" ]; then size=$(blockdev --getsize64 "$path") past=direct; else size=$(stat -L --format=%s -- "$path") past=; fi
    echo "size $size"
    [ "$size" -ge "$end" ] || end=$size
    part() { dd if="$path" bs="$end" count=1 skip="$1" iflag="skip_bytes,fullblock${past:+,$past}" status=none | sha256sum | cut -d ' ' -f 1; }
    first=$(part 0)
    last=$(part $((size - end)))
    echo "digest $first $last"
done
