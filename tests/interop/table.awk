# The figures of run.sh as a table: folder|rounded|ours|dense|dense with inputs rounded|reference|vLLM|reference|
# transformers|decode equal|flags for vLLM|words of refusal, vLLM|the same, transformers. In brackets how far a figure
# is from its reference, in percent; d: from dense, else from ours.
function number(x) { return x ~ /^[0-9]/ }
function cell(x, reference, limit,    off) {
    if (x == "refused" || x == "-") return x
    if (!number(x) || !number(reference)) { bad = "FAILED"; return x == "" ? "failed" : x }
    off = 100 * (x / reference - 1)
    if (!(off > -limit && off < limit)) bad = "FAILED"
    return sprintf("%.3f (%+.3f%s)", x, off, reference == dense && from_dense ? " d" : "")
}
BEGIN {
    line = "%-24s %8s  %-17s  %-17s  %-19s  %-19s  %-6s  %s\n"
    printf line, "folder", "ours", "dense", "dense, rounded", "vLLM", "transformers", "decode", "verdict"
}
{
    bad = "ok"; dense = $4; from_dense = 0
    if (!number($3) || $10 != "yes") bad = "FAILED"
    d = $2 == "nothing" ? cell($4, $3, 0.1) : number($4) ? sprintf("%.3f", $4) : cell($4, $3, 0)
    a = $2 == "inputs" ? cell($5, $3, 0.3) : "-"
    from_dense = $6 == "dense"
    v = cell($7, $6 == "dense" ? $4 : $3, $2 == "nothing" || $6 == "dense" ? 0.1 : 0.3)
    from_dense = $8 == "dense"
    h = cell($9, $8 == "dense" ? $4 : $3, $2 == "nothing" || $8 == "dense" ? 0.1 : 0.3)
    printf line, $1, number($3) ? sprintf("%.3f", $3) : $3, d, a, v, h, $10 == "yes" ? "equal" : "-", bad
    failed = failed || bad != "ok"
}
function note(text) { notes = notes $1 ": " text "\n" }
{
    if ($7 == "refused") note("vLLM: " $12)
    if ($9 == "refused") note("transformers: " $13)
    if ($6 == "dense" && number($7)) note("vLLM computes with unrounded inputs")
    if ($8 == "dense" && number($9)) note("transformers computes with unrounded inputs")
    if ($11 != "" && number($7)) note("vLLM with " $11)
}
END {
    print "\nin brackets: percent from ours; d: from dense, the decoded weights with nothing rounded\n" notes
    exit failed || NR == 0
}
