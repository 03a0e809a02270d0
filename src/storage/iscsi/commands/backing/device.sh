# stor-check-device PATH IDENTITY: fails unless a block device is still the one that was looked at, and nobody has it for himself.
# Never writes. POSIX sh; constant text, both values are positional parameters.
path=$1
[ -b "$path" ] || { echo "$path is no block device any more" >&2; exit 1; }
now=$(printf 'b:%d:%d' "0x$(stat -L --format=%t -- "$path")" "0x$(stat -L --format=%T -- "$path")")
[ "$now" = "$2" ] || { echo "$path is another device now: $now, not $2" >&2; exit 1; }
command -v perl > /dev/null || exit 0
perl -MFcntl -e 'exit(sysopen(my $device, $ARGV[0], O_RDONLY | O_EXCL) ? 0 : $!{EBUSY} ? 3 : 0)' "$path"
[ $? -ne 3 ] || { echo "$path is in use: another program has it for itself" >&2; exit 1; }
