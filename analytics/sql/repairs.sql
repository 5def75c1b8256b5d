-- What malformed data was repaired, and by whom.
-- group faults
-- waits for DataRepaired events: their payload is not decided, so it is shown whole
SELECT occurred_at, sender AS repaired_by, conversation_id, causation_id AS repaired_event,
    payload, event_id
FROM events
WHERE kind = 'DataRepaired'
ORDER BY occurred_at DESC, event_id
