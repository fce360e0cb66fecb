-- What Envoy has no setting for, of requests. Runs when the body is there, before the transcoder and in all three
-- protocols, so it stays short. Its own 400s read `field: rule`, as faults.lua expects them.

-- The REST paths that carry fields of the request, by their folded names (see `folded`). Written by the gateway.
local PATH_FIELDS = {--<path_fields>
}

-- The words that may stand behind a colon at a REST path's end. Written by the gateway.
local VERBS = {--<verbs>
}

-- The RPCs whose body is many messages, and not waited for. Written by the gateway.
local CLIENT_STREAMS = {--<client_streams>
}

-- The request id is no secret; it must only differ from others. Each of Envoy's threads loads this file for itself.
math.randomseed(os.time() + tonumber(tostring({}):match("0x(%x+)"), 16) % 2147483647)

local function new_request_id()
  local function hex(digits)
    return string.format("%0" .. digits .. "x", math.random(0, 16 ^ digits - 1))
  end
  return hex(8) .. "-" .. hex(4) .. "-4" .. hex(3) .. "-a" .. hex(3) .. "-" .. hex(6) .. hex(6)
end

local function is_well_formed(request_id)
  return #request_id <= 64 and #request_id >= 8 and not request_id:find("[^%w._-]")
end

-- Names as the transcoder understands them: `show_id` and `showId` are one field, and so is `show%5Fid`.
local function folded(name)
  name = name:gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end)
  return (name:gsub("_", ""):lower())
end

-- The transcoder lets a query parameter win over the path: GET /shows/A?showId=B would answer show B. Refuse it.
local function overridden_field(path, query)
  local names
  for pair in query:gmatch("[^&]+") do
    local name = folded(pair:match("^[^=]*"))
    names = names or {}
    names[name] = true
  end
  if not names then return nil end
  for _, rule in ipairs(PATH_FIELDS) do
    if path:find(rule.path) then
      for name, field in pairs(rule.fields) do
        if names[name] then return field end
      end
    end
  end
  return nil
end

-- The transcoder takes a colon elsewhere for a part of an id. No id has one, and the limits (gateway/admission.py) know
-- none there.
local function has_stray_colon(path)
  local colon = path:find(":", 1, true)
  return colon and not VERBS[path:sub(colon + 1):match("^(.-)/*$")]
end

-- Tokens belong into the authorization header: addresses end up in histories, logs and referrers.
local TOKEN_NAMES = {accesstoken = true, token = true, idtoken = true, jwt = true, authorization = true, bearer = true}

local function holds_token(query)
  if query:find("eyJ[%w_-]+%.eyJ[%w_-]*%.") or query:find("eyJ[%w_-]+%.[%w_-]+%.[%w_-]") then return true end
  for pair in query:gmatch("[^&]+") do
    if TOKEN_NAMES[folded(pair:match("^[^=]*"))] then return true end
  end
  return false
end

-- A gRPC server waits for the rest of a message that came in half until the call's deadline, and answers nobody.
-- https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: a byte of flags, four of length, the message.
local function is_whole(body)
  if not body or body:length() < 5 then return false end
  local flags, a, b, c, d = body:getBytes(0, 5):byte(1, 5)
  return flags <= 1 and body:length() - 5 >= ((a * 256 + b) * 256 + c) * 256 + d
end

local function refuse(handle, status, text)
  handle:respond({[":status"] = status}, text)
end

local function check_query(handle, headers, path, query)
  if holds_token(query) then
    refuse(handle, "401", "an access token does not belong into the address")
    return
  end
  local method = headers:get(":method")
  if method == "POST" or method == "PUT" or method == "PATCH" then
    -- The transcoder would read fields from here too: a password, say, that then stands in every log on the way.
    local name = query:match("^[%w_.-]+") or "query"
    refuse(handle, "400", name:sub(1, 100) .. ": belongs into the body, not into the query")
    return
  end
  local field = overridden_field(path, query)
  if field then refuse(handle, "400", field .. ": is given by the path already, not to be given in the query") end
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local request_id = headers:get("x-request-id")
  if request_id and not is_well_formed(request_id) then
    headers:replace("x-request-id", new_request_id())
  end

  -- The scheme's name may be written in any way (RFC 9110); the JWT filter knows one.
  local authorization = headers:get("authorization")
  if authorization and authorization:sub(1, 7) ~= "Bearer " then
    local token = authorization:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(.*)$")
    if token then headers:replace("authorization", "Bearer " .. token) end
  end

  local target = headers:get(":path")
  if not target then return end -- CONNECT

  local is_grpc = (headers:get("content-type") or ""):sub(1, 16) == "application/grpc"
  if is_grpc and not target:find("?", 1, true) then
    -- 422 is the status that the gateway's answer to this goes by.
    if not CLIENT_STREAMS[target] and not is_whole(handle:body()) then refuse(handle, "422", "not a whole message") end
    return
  end
  if target:sub(1, 9) == "/marquee." then
    refuse(handle, "404", "") -- an RPC's own path is no REST path, and its service would wait for a whole message
    return
  end

  if target:sub(1, 5) ~= "/api/" then return end
  local mark = target:find("?", 1, true) or #target + 1
  if has_stray_colon(target:sub(1, mark - 1)) then
    refuse(handle, "404", "")
  elseif mark < #target then
    check_query(handle, headers, target:sub(1, mark - 1), target:sub(mark + 1))
  end
end
