-- How many events each sender appended, by topic and hour, or by another period.
-- group agents
-- param by: one of hour, day, week, month, year = hour
SELECT date_trunc($by, occurred_at) AS period, sender, topic, count(*) AS events
FROM events
GROUP BY period, sender, topic
ORDER BY period, sender, topic
