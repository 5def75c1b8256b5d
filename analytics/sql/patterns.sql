-- What forms of turns the decision tree settles, since when, how often, and with what success.
-- group learning
-- param since: time = any
WITH judged AS (
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result
    FROM outcomes
    WHERE about = 'decision' AND judged_by IN ('record', 'audit')
    GROUP BY about_id, judged_by
), settled AS (
    SELECT d.*, j.result, json_object(
        'sender_kind', features->>'sender_kind', 'intent', features->>'intent',
        'command', features->>'command', 'verb', features->>'verb',
        'shorthand', features->>'shorthand', 'ack_tag', features->>'ack_tag'
    )::VARCHAR AS form
    FROM decisions d LEFT JOIN judged j
        ON j.about_id = d.event_id AND (d.mode <> 'live' OR d.audited)
        AND j.judged_by = CASE d.mode WHEN 'live' THEN 'audit' ELSE 'record' END
    WHERE tier = 'dtr'
)
SELECT recipient, mode, route, form, count(*) AS support, min(occurred_at) AS first_at,
    max(occurred_at) AS last_at, count(result) AS judged,
    round(count(*) FILTER (result = 'success') / nullif(count(result), 0), 4) AS success,
    arg_min(model_version, (occurred_at, event_id)) AS first_model
FROM settled
GROUP BY recipient, mode, route, form
HAVING $since::TIMESTAMP IS NULL OR min(occurred_at) >= $since::TIMESTAMP
ORDER BY support DESC, recipient, mode, route, form
