-- Which tier settled what share, promised against delivered error; by mode, MAD or day.
-- group routing
-- param by: one of mode, mad, day = mode
WITH lived AS (
    SELECT conversation_id, CASE WHEN bool_or(traffic = 'imported') THEN 'imported'
        WHEN bool_or(traffic = 'scripted') THEN 'scripted' ELSE 'live' END AS traffic
    FROM turns
    GROUP BY conversation_id
), judged AS (
    -- What a cheap tier did has no judge by itself. In shadow and in retrospect it is what was
    -- really done; live it is the tier above, of the audited share alone, so that chance picks it.
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    GROUP BY about_id, judged_by
), told AS (
    SELECT d.*, j.result, t.event_id AS message, l.traffic,
        CASE $by
            WHEN 'mode' THEN NULL
            WHEN 'mad' THEN d.recipient
            WHEN 'day' THEN strftime(d.occurred_at, '%Y-%m-%d')
        END AS part
    FROM decisions d LEFT JOIN turns t ON t.event_id = d.turn_id
    LEFT JOIN lived l ON l.conversation_id = d.conversation_id
    LEFT JOIN judged j ON j.about_id = d.event_id AND d.tier <> 'imperator'
        AND (d.mode <> 'live' OR d.audited)
        AND j.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
), counted AS (
    -- Each decision is a call to the language model made or avoided; some are about a message, the
    -- others about what a tool answered.
    SELECT mode, part, tier, settled_by, count(*) AS decisions,
        count(*) / sum(count(*)) OVER whole AS share, count(message) AS messages,
        count(message) / nullif(sum(count(message)) OVER whole, 0) AS message_share,
        string_agg(DISTINCT traffic, ', ' ORDER BY traffic) AS traffic,
        favg(confidence) AS mean_confidence, favg(max_error) AS promised_error,
        count(*) FILTER (audited) AS audited, count(result) AS judged,
        count(*) FILTER (result <> 'success') AS wrong,
        quantile_cont(duration_us, 0.5) AS p50_us, quantile_cont(duration_us, 0.99) AS p99_us
    FROM told
    GROUP BY mode, part, tier, settled_by
    WINDOW whole AS (PARTITION BY mode, part)
)
-- The interval is exact (Clopper and Pearson's), at 95 %. The targets are what is expected of a grown
-- ecosystem, as shares of messages.
SELECT mode, part, tier, settled_by, decisions,
    round(share, 4) AS share, messages, round(message_share, 4) AS message_share,
    CASE tier WHEN 'dtr' THEN 0.6::DOUBLE WHEN 'lppm' THEN 0.15 WHEN 'imperator' THEN 0.05 END
        AS target_low,
    CASE tier WHEN 'dtr' THEN 0.8::DOUBLE WHEN 'lppm' THEN 0.3 WHEN 'imperator' THEN 0.1 END
        AS target_high,
    round(promised_error, 4) AS promised_error, round(wrong / nullif(judged, 0), 4) AS delivered_error,
    round(share_low(wrong, judged), 4) AS error_low, round(share_high(wrong, judged), 4) AS error_high,
    judged, wrong, audited, round(mean_confidence, 4) AS mean_confidence, p50_us, p99_us, traffic
FROM counted
ORDER BY mode, part, decisions DESC, tier
