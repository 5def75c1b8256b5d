-- All conversations of a role, by the agent of that name or its instances, newest first.
-- group agents
-- param role: text
WITH played AS (
    -- An instance is named by its role and a number: senior-dev-17.
    SELECT *, [name FOR name IN participants IF name = $role OR (starts_with(name, $role || '-')
        AND regexp_full_match(substr(name, length($role) + 2), '[0-9]+'))] AS instances
    FROM conversations
)
SELECT conversation_id, instances, first_at, last_at, turns, outcome
FROM played
WHERE len(instances) > 0
ORDER BY last_at DESC, conversation_id
