-- Turns that people cannot read, by sender and week: hidden, encoded or undecodable text.
-- group security
-- param by: one of hour, day, week, month, year = week
WITH judged AS (
    -- The rules that no agent may break, as the guards apply them: docs/guards.md.
    SELECT sender, date_trunc($by, occurred_at) AS period, occurred_at, event_id, CASE
        WHEN regexp_matches(text, '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{ad}\x{61c}\x{115f}'
            || '\x{1160}\x{3164}\x{ffa0}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}'
            || '\x{2060}-\x{206f}\x{feff}\x{fff9}-\x{fffb}\x{e0100}-\x{e01ef}\p{Co}]')
            -- Tags belong to flags alone.
            OR regexp_matches(regexp_replace(text, '\x{1f3f4}[\x{e0030}-\x{e0039}'
                || '\x{e0061}-\x{e007a}]{1,6}\x{e007f}', '', 'g'), '[\x{e0000}-\x{e007f}]')
            -- Joiners belong within a script or an emoji.
            OR regexp_matches(text, '(^|[\x{200c}\x{200d}])[\x{200c}\x{200d}]'
                || '|[\x{200c}\x{200d}]$|[\x00-\x7f][\x{200c}\x{200d}][\x00-\x7f]') THEN 'hidden'
        WHEN regexp_matches(text, '[A-Za-z0-9]{129}')
            OR len([run FOR run IN regexp_extract_all(text, '[A-Za-z0-9+/=_-]{64,}')
                IF 5 * least(length(regexp_replace(run, '[^A-Z]', '', 'g')),
                    length(regexp_replace(run, '[^a-z]', '', 'g'))) >= length(run)
                AND 20 * length(regexp_replace(run, '[^0-9]', '', 'g')) >= length(run)]) > 0
            THEN 'encoded'
        WHEN length(regexp_replace(text, '[^\x{fffd}]', '', 'g')) >= 2
            AND 50 * length(regexp_replace(text, '[^\x{fffd}]', '', 'g')) >= length(text)
            THEN 'undecodable'
        END AS broken
    FROM turns
)
SELECT sender, period, count(*) AS turns, count(broken) AS unreadable,
    round(count(broken) / count(*), 4) AS share, list_sort(list(DISTINCT broken)) AS rules,
    arg_min(event_id, (occurred_at, event_id)) FILTER (broken IS NOT NULL) AS first_event_id
FROM judged
WHERE sender IN (SELECT sender FROM judged WHERE broken IS NOT NULL)
GROUP BY sender, period
ORDER BY sender, period
