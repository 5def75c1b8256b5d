-- How the turns of a conversation were routed: route, confidence, features and model version.
-- group routing
-- param conversation: text = latest
-- param turn: text = all
-- reads one conversation
SELECT t.turn_number, d.recipient, d.mode, d.tier, d.route, d.arguments, d.confidence,
    d.max_error AS promised_error, d.escalation, d.reason, d.model_version, d.candidates,
    d.features, left(t.text, 120) AS text, d.occurred_at, d.turn_id, d.event_id AS decision_id
FROM decisions d LEFT JOIN turns t ON t.event_id = d.turn_id
WHERE d.conversation_id = $conversation
    -- A turn goes by its number or its event_id; some decisions are about what a tool answered.
    AND $turn IN ('all', d.turn_id, t.turn_number::VARCHAR)
ORDER BY d.occurred_at, t.turn_number, d.recipient, d.mode, d.event_id
