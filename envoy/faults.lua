-- REST only, around the transcoder. What the transcoder refuses names its field in a sentence, or not at all; here the
-- sentence becomes what the services answer: `field: rule`, and the two again in `field_violations`. Nothing that the
-- client sent is repeated, so nothing has to be escaped. A sentence that is not understood stays a message.

-- The error as the services give it, with three places to fill. Written by the gateway, as are the two tables.
local ANSWER = --<answer>

-- Every field that a body can carry, by its path without indexes, and whether it may be a list.
local FIELDS = {--<fields>
}

-- The values of each enum.
local CHOICES = {--<choices>
}

local RULES = {
  TYPE_STRING = "must be a string",
  TYPE_BYTES = "must be a string of base64",
  TYPE_BOOL = "must be true or false",
  TYPE_INT32 = "must be a whole number from -2147483648 to 2147483647",
  TYPE_UINT32 = "must be a whole number from 0 to 4294967295",
  TYPE_INT64 = "must be a whole number of 64 bits",
  TYPE_UINT64 = "must be a whole number of 64 bits, not negative",
  TYPE_FLOAT = "must be a number",
  TYPE_DOUBLE = "must be a number",
  ["google.protobuf.Timestamp"] = "must be a time with its zone from the years 1 to 9999, as 2026-11-22T10:00:00Z is",
  ["google.protobuf.Duration"] = "must be a number of seconds with an s, as 1.5s is",
  ["google.protobuf.FieldMask"] = "must be names of fields with commas between them",
}

-- Beyond it a body is not searched for the place of the fault. Webhooks may be larger, and they are not JSON to us.
local MOST_BYTES = 65536

-- The body of the request that is being read. One variable is enough for a thread: the transcoder refuses a body at once,
-- before another request comes by.
local body

-- --- where in the body --------------------------------------------------------------------------------------------------

-- The transcoder's reader takes more than JSON (single quotes, bare names, a last comma), and so does this one: what the
-- one takes, the other must not stumble over. `walk` calls `on_list` for each list; both it and a fault end the walk with
-- an error that is {path = where}.

local DEEPEST = 100

local function stop(path)
  error({path = path}, 0)
end

local function skip(text, at)
  return text:find("[^%s]", at) or #text + 1
end

local function is_utf8(text)
  local rest = text:gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", "")
  rest = rest:gsub("[\224-\239][\128-\191][\128-\191]", ""):gsub("[\194-\223][\128-\191]", "")
  return not rest:find("[\128-\255]")
end

-- Where the string that begins at `at` has ended.
local function read_string(text, at, path)
  local quote, first = text:sub(at, at), at
  while true do
    at = text:find("[\\" .. quote .. "]", at + 1)
    if not at then stop(path) end
    if text:sub(at, at) == quote then
      if not is_utf8(text:sub(first, at)) then stop(path) end
      return at + 1
    end
    at = at + 1
    if text:sub(at, at) == "u" then
      local code = tonumber(text:match("^%x%x%x%x", at + 1) or stop(path), 16)
      if code >= 0xD800 and code < 0xDC00 then
        local low = tonumber(text:match("^\\u(%x%x%x%x)", at + 5) or stop(path), 16)
        if low < 0xDC00 or low > 0xDFFF then stop(path) end
      end
    end
  end
end

local function read_word(text, at, path)
  local word = text:match("^[%w+.-]+", at) or stop(path)
  if word ~= "true" and word ~= "false" and word ~= "null" then
    local number = word:find("^-?[%d.]+[eE]?[+-]?%d*$") and not word:find("^-?0%d") and tonumber(word)
    if not number or number - number ~= 0 then stop(path) end
  end
  return at + #word
end

-- `showId` and `show_id` are one field, and `show_id` is its name in the contract. Paths longer than any of the contract
-- are not followed: whoever sends them should not make us build them.
local function member(path, key)
  if #path > 200 then return path end
  local name = #key <= 64 and key:match("^[%a_][%w_]*$") and key:gsub("%u", function(letter) return "_" .. letter:lower() end) or "?"
  return path == "" and name or path .. "." .. name
end

local walk

local function walk_object(text, at, path, depth, on_list)
  at = skip(text, at)
  while text:sub(at, at) ~= "}" do
    local first, ends = at, nil
    if text:find("^[\"']", at) then
      ends = read_string(text, at, path)
      first, at = first + 1, ends - 2
    else
      ends = at + #(text:match("^[%a_$][%w_$]*", at) or stop(path))
      at = ends - 1
    end
    local inner = member(path, text:sub(first, at))
    at = skip(text, ends)
    if text:sub(at, at) ~= ":" then stop(inner) end
    at = skip(text, walk(text, at + 1, inner, depth, on_list))
    if text:sub(at, at) == "," then
      at = skip(text, at + 1)
    elseif text:sub(at, at) ~= "}" then
      stop(inner)
    end
  end
  return at + 1
end

local function walk_list(text, at, path, depth, on_list)
  on_list(path)
  local index = 0
  at = skip(text, at)
  while text:sub(at, at) ~= "]" do
    -- A list in a list is no thing of the contract, and so has no index.
    local inner = path:sub(-1) == "]" and path or path .. "[" .. index .. "]"
    at = skip(text, walk(text, at, inner, depth, on_list))
    index = index + 1
    if text:sub(at, at) == "," then
      at = skip(text, at + 1)
    elseif text:sub(at, at) ~= "]" then
      stop(path)
    end
  end
  return at + 1
end

function walk(text, at, path, depth, on_list)
  if depth > DEEPEST then stop(path) end
  at = skip(text, at)
  local first = text:sub(at, at)
  if first == "{" then return walk_object(text, at + 1, path, depth + 1, on_list) end
  if first == "[" then return walk_list(text, at + 1, path, depth + 1, on_list) end
  if first == '"' or first == "'" then return read_string(text, at, path) end
  return read_word(text, at, path)
end

local function without_indexes(path)
  return (path:gsub("%[%d+%]", ""))
end

-- The innermost field of the contract that `path` lies in; "" for none.
local function known(path)
  while path ~= "" and FIELDS[without_indexes(path)] == nil do
    path = path:match("^(.*)[.%[]") or ""
  end
  if FIELDS[without_indexes(path)] == false then path = path:gsub("%[%d+%]$", "") end
  return path
end

local function place_of_fault()
  if not body then return "" end
  local _, stopped = pcall(walk, body, 1, "", 0, function() end)
  return type(stopped) == "table" and known(stopped.path) or ""
end

-- The first list in `parent` whose field takes none. The transcoder tells only the parent.
local function place_of_list(parent)
  if not body then return parent end
  local _, stopped = pcall(walk, body, 1, "", 0, function(path)
    local above = path:match("^(.*)%.[^.]*$") or ""
    if above == parent and FIELDS[without_indexes(path)] == false then stop(path) end
  end)
  return type(stopped) == "table" and known(stopped.path) or parent
end

-- --- what the sentences mean ----------------------------------------------------------------------------------------------

local function clean(text)
  return (text:gsub("[^%w_.-]", "?"):sub(1, 100))
end

local function rule_for(kind)
  local name = kind:gsub("^type%.googleapis%.com/", "")
  local choices = CHOICES[name]
  return RULES[name] or (choices and "must be one of " .. choices) or "must be an object"
end

-- The field and the rule of one of the transcoder's sentences. What the client sent may stand in it, so each pattern ends
-- with the transcoder's own words.
local function understood(sentence)
  local place, name = sentence:match("^([%w_.%[%]]*): invalid value Starting an object on a scalar field for type ([%w_]+)$")
  if place then
    if place:match("[%w_]*$") ~= name then place = place == "" and name or place .. "." .. name end
    return place, "must not be an object"
  end
  local kind
  place, kind = sentence:match("^([%w_.%[%]]*): invalid value .* for type ([%w_./]+)$")
  if place then return place, rule_for(kind) end
  place = sentence:match("^([%w_.%[%]]*): Proto field is not repeating, cannot start list%.$")
  if place then return place_of_list(place), "must not be a list" end
  if sentence == ": Root element must be a message." then return "", "must be a JSON object" end
  if sentence:find("^Message too deep%.") then return place_of_fault(), "is nested too deeply" end
  local words = sentence:match("^([%w ,.:{}%]/-]+)%.\n.*%^$")
  if words then return place_of_fault(), "is not JSON: " .. words:sub(1, 1):lower() .. words:sub(2) end

  name = sentence:match('^Could not find field "(.*)" in the type "[%w_.]+"%.$')
  if name then return clean(name), "is not a parameter of this call" end
  name = sentence:match('^Encountered a non%-leaf field "([%w_]+)" that is not a message while parsing a field path$')
  if name then return name, "has no fields of its own" end
  name = sentence:match("^The binding value .* of the field ([%w_.]+) is conflicting with the value .* in the body%.$")
  if name then return name, "must be the same in the body as in the path" end
  -- Those of guard.lua.
  place, words = sentence:match("^([%w_.?-]+): ([%w ,;.-]+)$")
  if place then return place, words end
  return nil
end

-- --- the answer ---------------------------------------------------------------------------------------------------------

local ESCAPES = {n = "\n", r = "\r", t = "\t", b = "\b", f = "\f"}

-- The text of a JSON string. Other characters than ASCII become question marks: no sentence has them in its own words.
local function unescaped(text)
  text = text:gsub("\\\\", "\0"):gsub("\\u(%x%x%x%x)", function(code)
    local number = tonumber(code, 16)
    return number < 128 and string.char(number) or "?"
  end)
  return (text:gsub("\\(.)", function(letter) return ESCAPES[letter] or letter end):gsub("%z", "\\"))
end

local function rewritten(answer)
  local message = answer:match('"message":"(.*)"}%s*$')
  if not message then return nil end
  local sentence = unescaped(message)
  local field, rule = understood(sentence)
  if not rule then
    field, rule = "", "cannot be read: " .. sentence:gsub("[^%w ,;.:()_-]", "?"):sub(1, 200)
  end
  if field == "" then field = "request" end
  return ANSWER:format(field, rule, field, rule)
end

function envoy_on_request(handle)
  body = nil
  local buffer = handle:body()
  if buffer and buffer:length() <= MOST_BYTES then body = buffer:getBytes(0, buffer:length()) end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  -- gRPC comes by only where no route told that it was (headers too large, say). Refusals to grpc-web have no content
  -- type yet.
  local kind = headers:get("content-type")
  if not kind or kind:sub(1, 16) == "application/grpc" then return end
  -- The transcoder leaves gRPC's headers beside the HTTP status, which says it already.
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  if not headers:get("x-marquee-unread") then return end
  headers:remove("x-marquee-unread")
  local answer = handle:body()
  local done, text = pcall(rewritten, answer:getBytes(0, answer:length()))
  if done and text then
    answer:setBytes(text)
    handle:headers():replace("content-length", tostring(#text)) -- `headers` ended with the wait for the body
  elseif not done then
    handle:logErr("faults.lua: " .. tostring(text))
  end
  body = nil
end
