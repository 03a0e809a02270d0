# stor-remove-volume GROUP NAME: removes a logical volume with its data, if it is there. POSIX sh; constant text, both values are
# positional parameters.
found=$(lvs --noheadings --options lv_name --select "vg_name=$1 && lv_name=$2") || exit 1
[ -n "$found" ] || exit 0
exec lvremove --yes --quiet -- "$1/$2"
