-- What Envoy has no setting for, of requests. Runs before the transcoder, in all three protocols, so it stays short.

-- The REST paths that carry fields of the request, by their folded names (see `folded`). Written by the gateway.
local PATH_FIELDS = {--<path_fields>
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

-- Tokens belong into the authorization header: addresses end up in histories, logs and referrers.
local TOKEN_NAMES = {accesstoken = true, token = true, idtoken = true, jwt = true, authorization = true, bearer = true}

local function holds_token(query)
  if query:find("eyJ[%w_-]+%.eyJ[%w_-]*%.") or query:find("eyJ[%w_-]+%.[%w_-]+%.[%w_-]") then return true end
  for pair in query:gmatch("[^&]+") do
    if TOKEN_NAMES[folded(pair:match("^[^=]*"))] then return true end
  end
  return false
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local request_id = headers:get("x-request-id")
  if request_id and not is_well_formed(request_id) then
    headers:replace("x-request-id", new_request_id())
  end

  local target = headers:get(":path")
  local mark = target:find("?", 1, true)
  if not mark or target:sub(1, 5) ~= "/api/" then return end
  local path, query = target:sub(1, mark - 1), target:sub(mark + 1)
  if query == "" then return end
  if holds_token(query) then
    handle:respond({[":status"] = "401"}, "an access token does not belong into the address")
    return
  end
  local method = headers:get(":method")
  if method == "POST" or method == "PUT" or method == "PATCH" then
    -- The transcoder would read fields from here too: a password, say, that then stands in every log on the way.
    handle:respond({[":status"] = "400"}, "fields of this call belong into the body, not into the query")
    return
  end
  local field = overridden_field(path, query)
  if field then
    handle:respond({[":status"] = "400"}, field .. ": the path already gives this field, the query must not")
  end
end
