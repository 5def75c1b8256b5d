-- Requests to each recipient, how many had no response, and how long the others waited.
-- group conversations
WITH asked AS (
    SELECT conversation_id, "offset", occurred_at, traffic, unnest(recipients) AS recipient
    FROM turns
    WHERE NOT list_contains(tags, 'ack') AND sender_kind <> 'system'
        AND (intent IS NULL OR intent IN ('INITIATE', 'REQUEST'))
), said AS (
    SELECT conversation_id, "offset", occurred_at, sender
    FROM turns WHERE NOT list_contains(tags, 'ack')
), answered AS (
    SELECT asked.recipient, asked.traffic, said.occurred_at IS NOT NULL AS answered,
        date_diff('microsecond', asked.occurred_at, said.occurred_at) / 1e6 AS waited_s
    FROM asked ASOF LEFT JOIN said ON said.conversation_id = asked.conversation_id
        AND said.sender = asked.recipient AND asked."offset" < said."offset"
)
-- Times of imported and scripted traffic may be made up.
SELECT recipient, traffic, count(*) AS requests, count(*) FILTER (answered) AS answered,
    count(*) FILTER (NOT answered) AS unanswered,
    round(quantile_cont(waited_s, 0.5), 3) AS median_s,
    round(quantile_cont(waited_s, 0.95), 3) AS p95_s, round(max(waited_s), 3) AS longest_s
FROM answered
GROUP BY recipient, traffic
ORDER BY unanswered DESC, requests DESC, recipient, traffic
