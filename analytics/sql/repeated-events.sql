-- How many events of each topic repeat an idempotency key or an id, and at what rate.
-- group faults
WITH counted AS (
    SELECT topic, row_number() OVER (PARTITION BY topic, event_id ORDER BY partition, "offset")
            AS nth_of_id,
        idempotency_key IS NOT NULL AS keyed, row_number() OVER (
            PARTITION BY topic, sender, idempotency_key ORDER BY partition, "offset"
        ) AS nth_of_key
    FROM events
)
-- Readers drop what was appended twice with one key; what is counted here reached them twice.
SELECT topic, count(*) AS events, count(*) FILTER (keyed) AS with_key,
    count(*) FILTER (keyed AND nth_of_key > 1) AS repeat_a_key,
    count(*) FILTER (nth_of_id > 1) AS repeat_an_id,
    round(count(*) FILTER (nth_of_id > 1 OR (keyed AND nth_of_key > 1)) / count(*), 6) AS rate
FROM counted
GROUP BY topic
ORDER BY topic
