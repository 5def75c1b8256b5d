-- Turns, calls and answers that hold something like a secret; there must be none.
-- group security
WITH texts AS (
    SELECT occurred_at, conversation_id, sender, 'turn' AS what, text, event_id FROM turns
    UNION ALL
    SELECT occurred_at, conversation_id, sender, 'call', arguments, event_id FROM tool_calls
    UNION ALL
    SELECT occurred_at, conversation_id, sender, 'answer', concat_ws(' ', result, error), event_id
    FROM tool_results
), found AS (
    -- The shapes that import takes out by --redact; see docs of madlog import.
    SELECT *, CASE
        WHEN regexp_matches(text, '-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY') THEN 'private-key'
        WHEN regexp_matches(text, '(^|[^A-Za-z0-9_-])(sk-[A-Za-z0-9_-]{16}'
            || '|[sr]k_(live|test)_[A-Za-z0-9]{16}|(AKIA|ASIA)[A-Z0-9]{16}'
            || '|gh[pousr]_[A-Za-z0-9]{20}|github_pat_[A-Za-z0-9_]{22}|glpat-[A-Za-z0-9_-]{20}'
            || '|xox[a-z]-[A-Za-z0-9-]{10}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{20}'
            || '|npm_[A-Za-z0-9]{36}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.)') THEN 'token'
        WHEN regexp_matches(text, '(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{16}') THEN 'bearer'
        WHEN regexp_matches(text, '://[^\s/:@]{1,256}:[^\s/@]{1,256}@') THEN 'password-in-url'
        WHEN len([value FOR value IN regexp_extract_all(text, '(?i)(?:pass(?:word|wd|phrase)|pwd'
            || '|secret|api[_-]?key|private[_-]?key|(?:access|auth|refresh|api|session|bearer)'
            || '[_-]?token)["'']?\s{0,3}[:=]\s{0,3}["'']?([^\s,;"''&}\]\[{]{1,1000})', 1)
            IF lower(value) NOT IN ('null', 'true', 'false')]) > 0 THEN 'assigned'
        END AS shape
    FROM texts
)
-- What is found is not shown: an answer goes further than the log does.
SELECT occurred_at, conversation_id, sender, what, shape, length(text) AS characters, event_id
FROM found
WHERE shape IS NOT NULL
ORDER BY occurred_at DESC, event_id
