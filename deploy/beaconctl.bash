# Completion of beaconctl for bash. Parses as plain sh too.
_beaconctl() {
    local words
    # $2 is the word to complete, $3 the one before it.
    case $3 in
    --token-file | --ca | --file)
        compopt -o default
        unset COMPREPLY
        return
        ;;
    log-level) words='debug info warn error' ;;
    gossip-key) words='generate list add use remove' ;;
    --admin) words='unix:/run/beacon/admin.sock 127.0.0.1:8081' ;;
    --limit | --timeout | nodes | peers | notify) words= ;;
    *)
        words='status nodes peers talkers sessions drain undrain reload log-level notify health
            gossip-key --admin --token-file --json --limit --timeout --file --no-reload --ca
            --insecure --help --version'
        ;;
    esac
    mapfile -t COMPREPLY <<WORDS
$(compgen -W "$words" -- "$2")
WORDS
    [ -n "$COMPREPLY" ] || unset COMPREPLY # an empty line is no word
}
complete -F _beaconctl beaconctl
