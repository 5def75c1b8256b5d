-- How much was going on: turns, tool calls, conversations and senders by hour, day or month.
-- group agents
-- param by: one of hour, day, week, month, year = day
WITH acts AS (
    SELECT date_trunc($by, occurred_at) AS period, conversation_id, sender, 1 AS turns, 0 AS calls
    FROM turns
    UNION ALL
    SELECT date_trunc($by, occurred_at), conversation_id, sender, 0, 1
    FROM tool_calls
)
SELECT period, sum(turns)::BIGINT AS turns, sum(calls)::BIGINT AS tool_calls,
    count(DISTINCT conversation_id) AS conversations, count(DISTINCT sender) AS senders
FROM acts
GROUP BY period
ORDER BY period
