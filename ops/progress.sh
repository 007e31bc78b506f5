# Sourced by the set-up scripts: runs what takes long, and says so while it does. POSIX shell.

# said TEXT: one line for people. Never on standard output, which belongs to whoever asked for an answer.
said() {
    printf '%s\n' "$1" >&2
}

# progress TEXT COMMAND...: runs the command with no input and its output in a log. Says TEXT and the seconds that it
# takes; shows the end of the log when it fails, and returns what it returned.
progress() {
    progress_text=$1
    shift
    progress_log=$(mktemp) || return 1
    progress_begin=$(date +%s)
    progress_ticker=
    if [ -t 2 ]; then
        (
            while kill -0 "$$" 2>/dev/null; do
                printf '\r  %s (%s s) ' "$progress_text" "$(($(date +%s) - progress_begin))" >&2
                sleep 1
            done
        ) &
        progress_ticker=$!
    else
        said "  $progress_text ..."
    fi
    # The command stays in the foreground, so that an interrupt from the keyboard reaches it.
    progress_result=0
    "$@" >"$progress_log" 2>&1 </dev/null || progress_result=$?
    if [ -n "$progress_ticker" ]; then
        kill "$progress_ticker" 2>/dev/null || :
        wait "$progress_ticker" 2>/dev/null || :
        printf '\r' >&2
    fi
    if [ "$progress_result" -eq 0 ]; then
        said "  $progress_text: $(($(date +%s) - progress_begin)) s "
    else
        said "  $progress_text: failed "
        tail -n 20 "$progress_log" >&2
    fi
    rm -f "$progress_log"
    return "$progress_result"
}
