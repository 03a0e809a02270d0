# remove DIRECTORY TYPE SOURCES PROBE: removes this host's probe file.
enter "$1" "$2" "$3"
if why=$(rm -f -- "$4" 2>&1); then echo removed; else say remove-failed "$why"; fi
