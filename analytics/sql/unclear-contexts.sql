-- Contexts after which the agent asked back instead of answering: too little was in them.
-- group learning
-- waits for ContextBuilt events
WITH contexts AS (
    SELECT event_id, sender, conversation_id, occurred_at FROM events WHERE kind = 'ContextBuilt'
)
SELECT c.occurred_at, c.sender AS agent, c.conversation_id, left(t.text, 200) AS asked_back,
    l.model, l.tokens_in, c.event_id AS context_id, t.event_id AS turn_id
FROM contexts c JOIN llm_calls l ON l.causation_id = c.event_id
JOIN turns t ON t.event_id = l.answer_id
WHERE regexp_matches(trim(t.text), '\?$') OR list_contains(t.tags, 'clarification')
ORDER BY c.occurred_at DESC, c.event_id, t.event_id
