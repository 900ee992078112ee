//! The scripts, each atomic on one key (and so on one slot), and idempotent: the same call again changes nothing more.
//!
//! A script that changes what other gateways know publishes the notice itself, so that there is none without the other.

use std::sync::LazyLock;

/// A script and the name the server knows it by.
pub(super) struct Script {
    pub(super) code: &'static str,
    pub(super) sha: String,
}

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $code:expr) => {
        $(#[$doc])*
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script { code: $code, sha: redis::Script::new($code).get_hash().to_owned() }
        });
    };
}

script!(
    /// A record by compare-and-set. ARGV: expected etag or empty, etag, value, ttl in ms, channel, notice.
    /// 1: written; 2: it was already; 0: there is none; etag and value: somebody else's.
    COMPARE_AND_SET,
    "local present = redis.call('HGET', KEYS[1], 'etag')
if present == ARGV[2] then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return 2
end
if (present or '') ~= ARGV[1] then
  if present then return {present, redis.call('HGET', KEYS[1], 'value')} end
  return 0
end
redis.call('HSET', KEYS[1], 'etag', ARGV[2], 'value', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1"
);

script!(
    /// Removes a record. ARGV: channel, notice.
    FORGET,
    "if redis.call('DEL', KEYS[1]) == 1 then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
return 1"
);

script!(
    /// A tombstone. ARGV: digest, the most there may be, when they all go in seconds since 1970, channel, notice.
    /// 1: written; 2: it was already; 0: there is no room.
    BURY,
    "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 2 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('EXPIREAT', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1"
);

script!(
    /// Whether a tombstone could be written. ARGV: digest, the most there may be. 1: it could, or is there; 0: there is no room.
    /// Writes and takes back, since a server without memory refuses the first only.
    MAY_BURY,
    "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 1 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[1], ARGV[1])
return 1"
);

script!(
    /// A sealing key. ARGV: fingerprint, key, the most there may be, channel, notice. The key that is kept, or nothing
    /// if there is no room.
    PUT_KEY,
    "local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept then return kept end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return ARGV[2]"
);

script!(
    /// Events of a stream. ARGV: ttl in ms, most events, most bytes, 1 if it ended, first sequence, events.
    /// The number of events dropped.
    SPILL,
    "local key, seq = KEYS[1], tonumber(ARGV[5])
local held = redis.call('HMGET', key, 'first', 'next', 'bytes')
local first, following = tonumber(held[1] or seq), tonumber(held[2] or seq)
local bytes, dropped = tonumber(held[3] or 0), 0
local function name(number) return string.format('%.0f', number) end
local function drop_first()
  bytes = bytes - redis.call('HSTRLEN', key, name(first))
  redis.call('HDEL', key, name(first))
  first, dropped = first + 1, dropped + 1
end
for at = 6, #ARGV do
  if seq >= following then
    while seq > following and first < following do drop_first() end
    if seq > following then first = seq end
    redis.call('HSET', key, name(seq), ARGV[at])
    bytes, following = bytes + #ARGV[at], seq + 1
    while following - first > tonumber(ARGV[2]) or bytes > tonumber(ARGV[3]) do drop_first() end
  end
  seq = seq + 1
end
redis.call('HSET', key, 'first', name(first), 'next', name(following), 'bytes', name(bytes))
if ARGV[4] == '1' then redis.call('HSET', key, 'ended', '1') end
redis.call('PEXPIRE', key, ARGV[1])
return dropped"
);

script!(
    /// What is held of a stream. ARGV: from which sequence, most events, most bytes.
    /// First, next, 1 if it ended, sequence of the first event that follows, events; or nothing.
    RECALL,
    "local key = KEYS[1]
local held = redis.call('HMGET', key, 'first', 'next', 'ended')
if not held[1] then return false end
local first, following, from = tonumber(held[1]), tonumber(held[2]), tonumber(ARGV[1])
if from < first then from = first end
if from > following then from = following end
local function name(number) return string.format('%.0f', number) end
local out, bytes = {held[1], held[2], held[3] or '0', name(from)}, 0
for seq = from, math.min(following, from + tonumber(ARGV[2])) - 1 do
  local event = redis.call('HGET', key, name(seq))
  if not event then break end
  bytes = bytes + #event
  if seq > from and bytes > tonumber(ARGV[3]) then break end
  out[#out + 1] = event
end
return out"
);

script!(
    /// A claim. ARGV: who claims, ttl in ms. 1: the first; 0: repeated.
    CLAIM,
    "local holder = redis.call('GET', KEYS[1])
if holder then return holder == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1"
);

script!(
    /// Gives up a claim. ARGV: what the claims of this process begin with.
    RELEASE,
    "local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1"
);

script!(
    /// Renews a holder's part of a budget. ARGV: holder, limit, units it may have in use until it hears, units wanted, term
    /// in ms, most holders, its turn. Units, holders. A holder's field: units occupied, units wanted, until when in ms, turn.
    HOLD_BUDGET,
    "local key, holder, limit, want = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local till, turn, others, wants, last = now + ARGV[5], 0, 0, {{want, holder}}, now + ARGV[5]
local all = redis.call('HGETALL', key)
for at = 1, #all, 2 do
  local occupied, wanted, ends, asked = string.match(all[at + 1], '^(%d+):(%d+):(%d+):(%d+)$')
  if not ends or tonumber(ends) <= now then
    redis.call('HDEL', key, all[at])
  elseif all[at] == holder then
    turn = tonumber(asked)
  else
    others, last = others + occupied, math.max(last, tonumber(ends))
    wants[#wants + 1] = {tonumber(wanted), all[at]}
  end
end
if tonumber(ARGV[7]) < turn then return {0, #wants} end
if #wants > tonumber(ARGV[6]) then return {0, #wants - 1} end
table.sort(wants, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
local left, part = limit, 0
for at, one in ipairs(wants) do
  part = math.min(one[1], math.floor(left / (#wants - at + 1)))
  if one[2] == holder then break end
  left = left - part
end
local units = math.max(0, math.min(part, limit - others))
local occupied = math.max(units, tonumber(ARGV[3]))
redis.call('HSET', key, holder, string.format('%.0f:%.0f:%.0f:%s', occupied, want, till, ARGV[7]))
redis.call('PEXPIRE', key, string.format('%.0f', last - now))
return {units, #wants}"
);

script!(
    /// Gives back a holder's part of a budget. ARGV: holder.
    LEAVE_BUDGET,
    "redis.call('HDEL', KEYS[1], ARGV[1])
return 1"
);

script!(
    /// A shared result: its bytes and its age in ms, by the server's clock; or nothing.
    RESULT,
    "local held = redis.call('HMGET', KEYS[1], 'value', 'at')
if not held[1] then return false end
local now = redis.call('TIME')
local age = math.floor((now[1] - held[2]) * 1000 + now[2] / 1000)
if age < 0 then age = 0 end
return {held[1], age}"
);

script!(
    /// Puts a shared result. ARGV: bytes, life in ms.
    SHARE_RESULT,
    "local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'at', string.format('%.3f', now[1] + now[2] / 1000000))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1"
);

script!(
    /// Claims a fetch, or renews the claim. ARGV: who, lease in ms. 1: it is theirs; 0: it is another's.
    CLAIM_FETCH,
    "local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1"
);

script!(
    /// Gives up the claim of a fetch. ARGV: whose.
    GIVE_UP_FETCH,
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1"
);

script!(
    /// Numbers a purge. ARGV: thing, whose, a new epoch, most things, how long the numbers are kept in ms. Epoch, number.
    /// Things are fields with a `=` before them; `@` holds who heeds them (`PURGED`).
    PURGE,
    "local key, field = KEYS[1], '=' .. ARGV[1]
redis.call('HSETNX', key, 'epoch', ARGV[3])
local number = redis.call('HINCRBY', key, 'newest', 1)
if redis.call('HLEN', key) - 2 - redis.call('HEXISTS', key, '@') >= tonumber(ARGV[4]) and redis.call('HEXISTS', key, field) == 0 then
  local held = redis.call('HMGET', key, 'epoch', '@')
  redis.call('DEL', key)
  redis.call('HSET', key, 'epoch', held[1], 'newest', number, '=', string.rep('\\0', 16) .. string.format('%.0f', number))
  if held[2] then redis.call('HSET', key, '@', held[2]) end
else
  redis.call('HSET', key, field, ARGV[2] .. string.format('%.0f', number))
end
redis.call('PEXPIRE', key, ARGV[5])
return {redis.call('HGET', key, 'epoch'), number}"
);

script!(
    /// What was purged. ARGV: the epoch and the number that are known, a new epoch if there is none, how long it is kept in
    /// ms, who heeds it, for how many ms (0: it is not noted). Epoch, newest, then things and their values; or nothing if
    /// that is known, and then it is noted who heeds it: in `@`, 16 bytes a name, 16 digits of the number, 16 of the end.
    PURGED,
    "if redis.call('HSETNX', KEYS[1], 'epoch', ARGV[3]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
local held = redis.call('HMGET', KEYS[1], 'epoch', 'newest')
local epoch, newest = held[1], held[2] or '0'
if epoch == ARGV[1] and newest == ARGV[2] then
  if ARGV[6] ~= '0' then
    local time = redis.call('TIME')
    local now, kept = time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HGET', KEYS[1], '@') or ''
    local heeds = {ARGV[5] .. string.format('%016.0f%016.0f', newest, now + ARGV[6])}
    for at = 1, #kept, 48 do
      if string.sub(kept, at, at + 15) ~= ARGV[5] and tonumber(string.sub(kept, at + 32, at + 47)) > now then
        heeds[#heeds + 1] = string.sub(kept, at, at + 47)
      end
    end
    redis.call('HSET', KEYS[1], '@', table.concat(heeds))
  end
  return false
end
local out, all = {epoch, newest}, redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
  if string.sub(all[at], 1, 1) == '=' then
    out[#out + 1] = string.sub(all[at], 2)
    out[#out + 1] = all[at + 1]
  end
end
return out"
);

script!(
    /// What was used of a quota: see the file.
    LEASE,
    include_str!("lease.lua")
);

script!(
    /// A gateway is there. ARGV: its id, for how long in ms, the most there may be. How many are there.
    ATTEND,
    "local time, most = redis.call('TIME'), tonumber(ARGV[3])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends, longest, count = redis.call('HGETALL', KEYS[1]), now + ARGV[2], 1
for at = 1, #ends, 2 do
  local over = tonumber(ends[at + 1])
  if ends[at] ~= ARGV[1] then
    if over <= now or count >= most then
      redis.call('HDEL', KEYS[1], ends[at])
    else
      count, longest = count + 1, math.max(longest, over)
    end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', longest - now))
return count"
);

script!(
    /// A gateway has left. ARGV: its id.
    DEPART,
    "redis.call('HDEL', KEYS[1], ARGV[1])
return 1"
);

script!(
    /// How many others heed what was purged, but not yet the purge of a number. ARGV: the number, whose it is.
    UNHEEDED,
    "local kept, time, late = redis.call('HGET', KEYS[1], '@') or '', redis.call('TIME'), 0
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 1, #kept, 48 do
  local heeded, over = tonumber(string.sub(kept, at + 16, at + 31)), tonumber(string.sub(kept, at + 32, at + 47))
  if string.sub(kept, at, at + 15) ~= ARGV[2] and heeded < tonumber(ARGV[1]) and over > now then late = late + 1 end
end
return late"
);

script!(
    /// A value of a space, whose life begins anew. ARGV: field, life in ms. Version and value; or nothing.
    DATUM,
    "local held = redis.call('HGET', KEYS[1], ARGV[1])
if held then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return held"
);

script!(
    /// A value by compare-and-set. ARGV: field, expected version or empty, version or empty to remove it, value, life in ms,
    /// most values, most bytes. 1: written; 2: there is none; version and value: somebody else's; 3: the space was ended;
    /// 4: too many bytes; 5: too many values.
    WRITE_DATUM,
    "local key, field = KEYS[1], ARGV[1]
if redis.call('HEXISTS', key, 'ended') == 1 then return 3 end
local held = redis.call('HGET', key, field)
local version = held and string.sub(held, 1, 16) or ''
if ARGV[3] ~= '' and version == ARGV[3] then
  redis.call('PEXPIRE', key, ARGV[5])
  return 1
end
if version ~= ARGV[2] then return held or 2 end
local bytes = tonumber(redis.call('HGET', key, 'bytes') or '0')
if held then bytes = bytes - #field - #held end
if ARGV[3] == '' then
  if not held then return 1 end
  redis.call('HDEL', key, field)
else
  bytes = bytes + #field + #ARGV[3] + #ARGV[4]
  if bytes > tonumber(ARGV[7]) then return 4 end
  if not held and redis.call('HLEN', key) - 1 >= tonumber(ARGV[6]) then return 5 end
  redis.call('HSET', key, field, ARGV[3] .. ARGV[4])
end
redis.call('HSET', key, 'bytes', string.format('%.0f', bytes))
redis.call('PEXPIRE', key, ARGV[5])
return 1"
);

script!(
    /// Ends a space. ARGV: how long writes are refused, in ms.
    END_SPACE,
    "redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'ended', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1"
);

script!(
    /// Begins a call. ARGV: run, lease in ms, life in ms. 1: the run's; 2: another's; 0: another's, and lost; or the result.
    BEGIN_CALL,
    "local held = redis.call('HMGET', KEYS[1], 'run', 'until', 'result')
if held[3] then return held[3] end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
if held[1] and held[1] ~= ARGV[1] then return now < tonumber(held[2]) and 2 or 0 end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1"
);

script!(
    /// Renews the lease of a run. ARGV: run, lease in ms, life in ms. 1: renewed; 0: it is not the run's, or over.
    HOLD_CALL,
    "local held = redis.call('HMGET', KEYS[1], 'run', 'result')
if held[1] ~= ARGV[1] or held[2] then return 0 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1"
);

script!(
    /// Keeps the result of a run. ARGV: run, result, life in ms. 1: kept; 0: it is not the run's.
    END_CALL,
    "if redis.call('HGET', KEYS[1], 'run') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'result', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1"
);

script!(
    /// The result of a call, if one is kept.
    RESULT_OF_CALL,
    "return redis.call('HGET', KEYS[1], 'result')"
);

script!(
    /// Forgets a call that its run did not begin. ARGV: run.
    FORGET_CALL,
    "local held = redis.call('HMGET', KEYS[1], 'run', 'result')
if held[1] == ARGV[1] and not held[2] then redis.call('DEL', KEYS[1]) end
return 1"
);

script!(
    /// A node. ARGV: ttl in ms, names and values of its fields.
    REGISTER,
    "redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1"
);

script!(
    /// A node's heartbeat. ARGV as `REGISTER`. 1: it is registered; 0: it is not.
    BEAT,
    "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if #ARGV > 1 then redis.call('HSET', KEYS[1], unpack(ARGV, 2)) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1"
);

script!(
    /// The ids of nodes. ARGV: most ids. How many there are, then the ids.
    NODES,
    "local number = redis.call('SCARD', KEYS[1])
local ids
if number <= tonumber(ARGV[1]) then
  ids = redis.call('SMEMBERS', KEYS[1])
else
  ids = redis.call('SORT', KEYS[1], 'LIMIT', 0, ARGV[1], 'ALPHA')
end
table.insert(ids, 1, number)
return ids"
);

script!(
    /// A node's fields, unless they are beyond the bounds. ARGV: most fields, most bytes. Fields; 0: too large.
    NODE,
    "local fields = redis.call('HLEN', KEYS[1])
if fields > tonumber(ARGV[1]) then return 0 end
local bytes = 0
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  bytes = bytes + #name + redis.call('HSTRLEN', KEYS[1], name)
end
if bytes > tonumber(ARGV[2]) then return 0 end
return redis.call('HGETALL', KEYS[1])"
);
