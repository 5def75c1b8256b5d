-- All that one person said, was told or asked about, and every event whose subject they are.
-- group security
-- param person: text
WITH told AS (
    SELECT occurred_at, conversation_id, kind, sender, subject, event_id, payload,
        concat_ws(' ', array_to_string(json_extract_string(payload, '$.parts[*].text'), ''),
            payload->>'arguments', payload->>'result', payload->>'error') AS text
    FROM events
    -- A delivery holds the bytes of a turn that is here itself.
    WHERE subject = $person OR (kind <> 'Delivery' AND (sender = $person OR contains(
        -- Most payloads do not hold the name at all; a name in JSON is written as JSON writes it.
        lower(payload::VARCHAR), trim(to_json(lower($person))::VARCHAR, '"')
    )))
), related AS (
    SELECT *, CASE
        WHEN sender = $person OR payload->>'principal' = $person THEN 'by'
        WHEN subject = $person THEN 'subject'
        WHEN list_contains(json_extract_string(payload, '$.recipients[*]'), $person) THEN 'to'
        WHEN list_contains(json_extract_string(payload, '$.mentions[*]'), $person)
            THEN 'mentions'
        WHEN payload->>'participant' = $person THEN 'participant'
        WHEN regexp_matches(lower(text), '(^|[^\p{L}\p{N}_])' || regexp_escape(lower($person))
            || '([^\p{L}\p{N}_]|$)') THEN 'names'
        -- A title, a reason, what an outcome rests on: whatever else an event says.
        WHEN regexp_matches(lower(payload::VARCHAR), '[^\p{L}\p{N}_]' || regexp_escape(
            trim(to_json(lower($person))::VARCHAR, '"')) || '[^\p{L}\p{N}_]') THEN 'names'
        END AS relation
    FROM told
)
SELECT occurred_at, relation, kind, sender, conversation_id, left(text, 500) AS text, event_id
FROM related
WHERE relation IS NOT NULL
ORDER BY occurred_at, event_id
