-- Frequent sequences of acts, outside conducted processes, that look like a process without a name.
-- group learning
-- param length: integer = 3
-- param times: integer = 3
WITH acts AS (
    SELECT conversation_id, "offset", sender, action AS act FROM tool_calls
    UNION ALL
    SELECT conversation_id, "offset", sender, 'asks ' || regexp_extract(text, '[A-Z]+:\s*(\S+)', 1)
    FROM turns WHERE content_class = 'deterministic' AND regexp_matches(text, '[A-Z]+:\s*\S')
), listed AS (
    SELECT conversation_id, list(sender || ': ' || act ORDER BY "offset") AS acts
    FROM acts
    WHERE conversation_id NOT IN (SELECT conversation_id FROM process_steps)
    GROUP BY conversation_id
), cut AS (
    SELECT conversation_id,
        [acts[place : place + $length - 1]
            FOR place IN range(1, len(acts) - $length + 2)] AS sequences
    FROM listed
), each AS (
    SELECT conversation_id, unnest(sequences) AS sequence FROM cut
)
SELECT array_to_string(sequence, ' > ') AS sequence, count(*) AS times,
    count(DISTINCT conversation_id) AS conversations
FROM each
-- One act over and over is no process.
WHERE len(list_distinct(sequence)) > 1
GROUP BY sequence
HAVING count(*) >= $times
ORDER BY conversations DESC, times DESC, sequence
