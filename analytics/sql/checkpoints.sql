-- The newest signed checkpoint of each partition: up to where, how many records, which root.
-- group proof
WITH signed AS (
    SELECT payload->>'topic' AS topic, (payload->>'partition')::INTEGER AS partition,
        payload->>'origin' AS origin, (payload->>'offset')::BIGINT AS up_to_offset,
        (payload->>'size')::BIGINT AS records, payload->>'root_sha256' AS root_sha256,
        payload->>'verifier_key' AS verifier_key, occurred_at, event_id
    FROM events WHERE kind = 'CheckpointSigned'
)
-- Whether the records still hash to it is for `madlog check` to say; SQL sees no bytes.
SELECT *, count(*) OVER same AS checkpoints
FROM signed
WINDOW same AS (PARTITION BY topic, partition, origin)
QUALIFY row_number() OVER (
    PARTITION BY topic, partition, origin ORDER BY records DESC, occurred_at DESC, event_id
) = 1
ORDER BY topic, partition, origin
