-- Which event caused which in a conversation, as a tree: depth, and each event under its cause.
-- group conversations
-- param conversation: text = latest
-- reads one conversation
WITH RECURSIVE mine AS (
    -- An event that stands twice would double everything under it.
    SELECT event_id,
        arg_min({
            'causation_id': causation_id, 'kind': kind, 'sender': sender,
            'topic': topic, 'partition': partition, 'offset': "offset", 'at': occurred_at,
            'text': left(trim(regexp_replace(coalesce(
                array_to_string(json_extract_string(payload, '$.parts[*].text'), ''), ''
            ), '\s+', ' ', 'g')), 120),
            'detail': coalesce(
                payload->>'action', payload->>'change', payload->>'route',
                payload->>'model', payload->>'result', payload->>'recipient'
            )
        }, (topic, partition, "offset")) AS event
    FROM events WHERE conversation_id = $conversation
    GROUP BY event_id
), placed AS (
    -- Within a topic the log's order counts, whatever clocks said; between topics the time reached.
    SELECT event_id, event,
        max(event.at) OVER (
            PARTITION BY event.topic, event.partition ORDER BY event.offset
        ) AS reached
    FROM mine
), ranked AS (
    SELECT event_id, event,
        row_number() OVER (
            ORDER BY reached, event.topic, event.partition, event.offset
        )::INTEGER AS number
    FROM placed
), tree AS (
    SELECT event_id, number, event, 0 AS depth, NULL::INTEGER AS caused_by, [number] AS path
    FROM ranked
    WHERE event.causation_id IS NULL OR event.causation_id NOT IN (SELECT event_id FROM ranked)
    UNION ALL
    SELECT child.event_id, child.number, child.event, depth + 1, tree.number,
        -- Deeper than this the order is that of the log, so that long chains stay cheap.
        CASE WHEN depth < 200 THEN list_append(path, child.number) ELSE path END
    FROM tree JOIN ranked AS child ON child.event.causation_id = tree.event_id
)
SELECT number, depth, caused_by, event.kind AS kind, event.sender AS sender,
    repeat('  ', least(depth, 40)) || event.kind
        || coalesce(' ' || nullif(event.text, ''), ' ' || event.detail, '') AS tree,
    event_id
FROM tree
ORDER BY path, number
