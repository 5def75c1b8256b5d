-- Which capacity trigger was crossed, when, and for how long.
-- group cost
-- waits for GateCrossed events: their payload is not decided, so it is shown whole
SELECT occurred_at, sender, payload,
    date_diff('second', occurred_at, lead(occurred_at) OVER (
        PARTITION BY sender, conversation_id ORDER BY occurred_at, event_id
    )) AS until_next_s, event_id
FROM events
WHERE kind = 'GateCrossed'
ORDER BY occurred_at DESC, event_id
