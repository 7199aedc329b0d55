# Completion of beaconctl for bash. Parses as plain sh too.
_beaconctl() {
    local words
    # $2 is the word to complete, $3 the one before it.
    case $3 in
    --token-file | --ca)
        compopt -o default
        unset COMPREPLY
        return
        ;;
    log-level) words='debug info warn error' ;;
    --admin) words='unix:/run/beacon/admin.sock 127.0.0.1:8081' ;;
    --limit | --timeout | nodes | notify) words= ;;
    *)
        words='status nodes talkers sessions drain undrain reload log-level notify health
            --admin --token-file --json --limit --timeout --ca --insecure --help --version'
        ;;
    esac
    mapfile -t COMPREPLY <<WORDS
$(compgen -W "$words" -- "$2")
WORDS
    [ -n "$COMPREPLY" ] || unset COMPREPLY # an empty line is no word
}
complete -F _beaconctl beaconctl
