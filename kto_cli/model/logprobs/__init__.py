"""Log-probs of many sequences over processes: the policy's computed, the reference's cached.

prepare.py            data, tokenizer, model and scorer of a run
encoding.py           the rows in tokens, as each part of a run reads them
micro_batch_size.py   the default token budget of a micro-batch
out_of_memory.py      work repeated in smaller micro-batches when memory runs out
forward.py            log-probs of sequences, in micro-batches over processes
needed.py             what of the reference a loss reads
reference.py          the reference's log-probs of a run's rows: cached, else computed
reference_model.py    the reference where it is another model than the one trained
reference_tokens.py   the reference's log-probs of single tokens: cached, else computed
reference_cache.py    the content-addressed cache of reference log-probs
segments.py           its files: checked frames of values
validation.py         scores of validation rows
"""
