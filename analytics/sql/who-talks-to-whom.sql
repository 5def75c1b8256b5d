-- Who addressed whom: turns and conversations for each pair of sender and recipient.
-- group agents
WITH said AS (
    SELECT sender, unnest(recipients) AS recipient, conversation_id, occurred_at FROM turns
)
SELECT sender, recipient, count(*) AS turns, count(DISTINCT conversation_id) AS conversations,
    min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM said
GROUP BY sender, recipient
ORDER BY turns DESC, sender, recipient
