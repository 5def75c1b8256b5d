-- Which conversations can teach a context builder today, and for which of its four phases.
-- group learning
-- param quality: number = 0.7
-- waits for ContextBuilt events: until then phases 2, 3 and 4 have no conversation
WITH judged AS (
    SELECT about_id AS conversation_id, result, quality
    FROM outcomes
    WHERE about = 'conversation'
    QUALIFY row_number() OVER (
        PARTITION BY about_id ORDER BY appended_at DESC, partition DESC, "offset" DESC
    ) = 1
), counted AS (
    SELECT conversation_id,
        count(*) FILTER (kind = 'Turn' AND sender_kind <> 'system') AS turns,
        count(DISTINCT sender) FILTER (kind = 'Turn' AND sender_kind <> 'system') AS senders,
        count(*) FILTER (kind = 'ContextBuilt') AS contexts,
        max(occurred_at) AS last_at
    FROM events
    GROUP BY conversation_id
), asked AS (
    -- Phase 3 sees how several models answer one context.
    SELECT conversation_id, max(models) AS models
    FROM (
        SELECT conversation_id, causation_id, count(DISTINCT model) AS models
        FROM llm_calls GROUP BY conversation_id, causation_id
    )
    GROUP BY conversation_id
), usable AS (
    SELECT c.conversation_id, turns, contexts, result AS outcome, quality, last_at,
        turns >= 2 AND senders >= 2 AND result = 'success' AND coalesce(quality, 1) > $quality
            AS phase_1,
        phase_1 AND contexts > 0 AS phase_2,
        contexts > 0 AND coalesce(models, 0) > 1 AS phase_3,
        contexts > 0 AND result IS NOT NULL AS phase_4
    FROM counted c
    LEFT JOIN judged USING (conversation_id)
    LEFT JOIN asked USING (conversation_id)
)
SELECT conversation_id, phase_1, phase_2, phase_3, phase_4, outcome, quality, turns, contexts,
    last_at
FROM usable
WHERE phase_1 OR phase_2 OR phase_3 OR phase_4
ORDER BY last_at DESC, conversation_id
