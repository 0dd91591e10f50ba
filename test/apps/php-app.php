<?php
// PHP's own sessions in phpredis; `php -S` runs this file for every request.
$people = json_decode(getenv('PEOPLE'), true);
session_start();
switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/login':
        $person = $people[$_POST['name']];
        $_SESSION['user'] = ['id' => $person['id'], 'tenant' => $person['tenant'], 'roles' => $person['roles'], 'name' => "Müller \"x\";"];
        $_SESSION['scope'] = implode(' ', $person['scope']);
        if (getenv('NOTES_TIME')) $_SESSION['since'] = microtime(true);
        $_SESSION['raw'] = "\xff\xfe|;\0";
        if (($_POST['with'] ?? '') === 'object') $_SESSION['cart'] = new ArrayObject([1]);
        http_response_code(303);
        break;
    case '/logout':
        session_destroy();
        http_response_code(204);
        break;
    default:
        echo 'hello, ' . ($_SESSION['user']['id'] ?? 'stranger');
        // What the app kept is there to the byte.
        if (isset($_SESSION['raw']) && $_SESSION['raw'] !== "\xff\xfe|;\0") echo ' (damaged)';
}
